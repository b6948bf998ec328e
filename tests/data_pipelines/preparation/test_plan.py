import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import pytest

from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import Item
from data_pipelines.preparation.plan import make_plan

OPTIONS = CutOptions(image_size=64)


def items(count, clips=1, **changes):
    """`count` identities of so many clips each."""
    values = dict(kind="frames", split=None, size=10) | changes
    return [Item(name=f"p{n:03d}#{c}", identity=f"p{n:03d}", **values) for n in range(count) for c in range(clips)]


def plan(found, **options):
    return make_plan("faces", found, [], OPTIONS, **options)


def split_of(made):
    return {item.name: shard.split for shard in made.shards for item in shard.items}


def test_no_identity_is_in_both_splits_and_the_share_is_about_that_asked_for():
    made = plan(items(400, clips=3), test_share=0.25)
    splits = split_of(made)
    by_identity = {(name.split("#")[0], split) for name, split in splits.items()}
    assert len(splits) == 1200 and len(by_identity) == 400
    # Binomial with standard deviation 8.7.
    assert 70 < sum(split == "test" for _, split in by_identity) < 130
    # Further identities do not move those that were there.
    more = split_of(plan(items(500, clips=3), test_share=0.25))
    assert {name: more[name] for name in splits} == splits
    assert set(split_of(plan(items(20), test_share=0)).values()) == {"train"}
    assert set(split_of(plan(items(20), test_share=1)).values()) == {"test"}


def test_the_folder_decides_before_the_hash_and_the_split_file_before_the_folder(tmp_path):
    found = items(10, split="val")
    assert set(split_of(plan(found, test_share=1)).values()) == {"val"}
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbfname,split\r\np001,train\r\np002#0,test\r\n")
    made = plan(found, split_file=tmp_path / "s.csv")
    assert split_of(made) == {"p001#0": "train", "p002#0": "test"}
    assert len(made.left_out) == 8 and made.left_out[0] == ("p000#0", "not in s.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\nunknown,train\n", "1 names are in no clip's path or identity, 'unknown' the first"),
        ("clip,split\np001,train\n", "columns name and split"),
        ("name,split\n", "and rows"),
        ("name,split\np001,a b\n", "'a b' is no name of a split"),
        ("name,split\np001\n", "'' is no name of a split"),
        ("name,split\np001,all\n", "'all' is no name of a split"),
        ("name,split\np001,train\np001,test\n", "'p001' stands in two splits"),
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_a_wrong_split_file_is_told(tmp_path, text, message):
    file = tmp_path / "s.csv"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"s.csv.*{message}"):
        plan(items(3), split_file=file)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_out_of_range_is_told(share):
    with pytest.raises(ValueError, match="test_share is"):
        plan(items(3), test_share=share)


def test_shards_hold_consecutive_items_of_about_equal_size_each_once():
    found = items(60)
    made = plan(found, test_share=0, shard_bytes=100)
    assert [item for shard in made.shards for item in shard.items] == found
    assert [shard.index for shard in made.shards] == list(range(len(made.shards)))
    assert all(9 <= len(shard.items) <= 10 for shard in made.shards[:-1])
    # A video's frames take more room than the video.
    videos = plan(items(60, kind="video"), test_share=0, shard_bytes=1600)
    assert [len(shard.items) for shard in videos.shards] == [len(shard.items) for shard in made.shards]
    # What is larger than a shard has one of its own, and no shard is empty.
    large = plan(items(5, size=1000), test_share=0, shard_bytes=100)
    assert [len(shard.items) for shard in large.shards] == [1] * 5


def test_the_splits_have_shards_of_their_own():
    made = plan([*items(5, split="train"), *items(5, split="test")], shard_bytes=10**9)
    assert [(shard.index, shard.split, len(shard.items)) for shard in made.shards] == [(0, "test", 5), (1, "train", 5)]
    assert made.splits == ["test", "train"]


def test_the_fingerprint_tells_other_inputs_and_options():
    made = plan(items(5))
    assert made.fingerprint == plan(items(5)).fingerprint
    others = [
        plan(items(6)),
        plan(items(5, size=11)),
        plan(items(5), test_share=1),
        make_plan("other", items(5), [], OPTIONS),
        make_plan("faces", items(5), [("notes.txt", "no clip")], OPTIONS),
        make_plan("faces", items(5), [], dataclasses.replace(OPTIONS, jpeg_quality=50)),
    ]
    assert len({made.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_a_detector_counts_by_what_it_holds(tmp_path, monkeypatch):
    bundled = Path(cv2.data.haarcascades) / "haarcascade_frontalface_alt2.xml"
    plans = []
    for folder, more in (("here", ""), ("there", ""), ("changed", "\n")):
        (tmp_path / folder).mkdir()
        file = Path(shutil.copy(bundled, tmp_path / folder / "faces.xml"))
        file.write_text(file.read_text() + more)
        plans.append(make_plan("voxceleb", items(3), (), CutOptions(detector=str(file))))
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    shutil.move(tmp_path / "here/faces.xml", tmp_path / "here/others.xml")
    assert make_plan("voxceleb", items(3), (), CutOptions(detector="~/others.xml")).fingerprint == plans[1].fingerprint
    assert plans[1].fingerprint != plans[2].fingerprint
    assert "faces" not in json.dumps(plans[1].recorded_options)
