import csv
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import transforms, video
from data_pipelines.clips import PreparedClips, open_clips
from data_pipelines.preparation import cutting, merge, prepare, shards
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.plan import make_plan
from data_pipelines.prepared_clips import read_shard_hashes
from tests.data_pipelines.preparation import trees

OPTIONS = CutOptions(image_size=trees.SIDE, jpeg_quality=0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return trees.make_tree(tmp_path_factory.mktemp("tree"))


def make(tree, options=OPTIONS, shard_bytes=4000):
    return make_plan("voxceleb", *find_items(tree), options, shard_bytes=shard_bytes)


@pytest.fixture(scope="module")
def made(tree, tmp_path_factory):
    """The output folder and the report of an undisturbed run."""
    output = tmp_path_factory.mktemp("made") / "output"
    return output, prepare.prepare(make(tree), tree, output)


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_every_layout_comes_out_and_every_broken_file_is_named(made):
    output, report = made
    found = {row["name"]: row["length"] for rows in tables(output).values() for row in rows}
    assert found == trees.CLIPS
    assert report["splits"]["test"] == {"clips": 1, "frames": 3, "identities": 1}
    assert report["splits"]["train"]["clips"] == 9
    with (output / "voxceleb/1.0.0/dropped.csv").open(newline="") as file:
        dropped = {row["source"]: row["reason"] for row in csv.DictReader(file)}
    assert dropped.keys() == trees.DROPPED
    assert all(dropped.values()) and "min_frames" in dropped["train/short.mp4"]
    assert dropped["train/half"].startswith("2.png: not an image")  # wherever the input lies
    assert report["dropped"] == 5


def tables(output):
    return json.loads((output / "voxceleb/1.0.0/metadata.json").read_text())["clips"]


def test_the_frames_are_those_of_the_input_bit_for_bit(made, tree):
    clips = open_clips(made[0])
    names = [clips.name(clip) for clip in range(len(clips))]
    for name in ("train/plain clip", "train/id1#7w0I#000100#000105.mp4", "train/loose.gif"):
        clip = names.index(name)
        frames = [clips.frame(clip, index) for index in range(clips.lengths[clip])]
        np.testing.assert_array_equal(frames, list(video.read_frames(tree / name)))
    strip = names.index("train/strips/side by side.png")
    np.testing.assert_array_equal(clips.frame(strip, 1), trees.frame(91))
    assert clips.identities[names.index("train/id3#x#00012.txt#003.mp4")] == "id3"


def test_tfds_reads_it_by_itself(made):
    builder = tfds.builder_from_directory(made[0] / "voxceleb/1.0.0")
    source = builder.as_data_source("test")
    assert len(source) == builder.info.splits["test"].num_examples == 3
    np.testing.assert_array_equal(source[2]["image"], trees.frame(52))
    assert (source[2]["clip"], source[2]["frame"]) == (b"test/id2#abcd#000010#000013.mp4", 2)


def test_the_table_says_where_a_clip_comes_from(made, tree):
    row = next(row for row in tables(made[0])["train"] if row["name"] == "train/plain clip")
    files = [tree / "train/plain clip" / f"{n}.png" for n in range(3)]
    video_row = next(row for row in tables(made[0])["train"] if row["name"] == "train/loose.gif")
    assert video_row["source_sha256"] == hashlib.sha256((tree / "train/loose.gif").read_bytes()).hexdigest()
    assert row["source_sha256"] == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    pictures = b"".join(transforms.encode_png(trees.frame(70 + n)) for n in range(3))
    assert row["sha256"] == hashlib.sha256(pictures).hexdigest()
    assert (row["identity"], row["length"], row["first"], row["box"]) == ("plain clip", 3, 0, None)


def test_clips_that_are_the_same_and_identities_in_both_splits_are_reported(tree, tmp_path, made):
    assert made[1]["duplicates"] == [["train/train/id1#7w0I#000001#000005.mp4", "train/train/twin#7w0I.mp4"]]
    assert made[1]["identities_in_several_splits"] == []
    shutil.copytree(tree / "train/plain clip", tmp_path / "in/test/id1#again")
    shutil.copytree(tree / "train/plain clip", tmp_path / "in/train/id1#first")
    report = prepare.prepare(make(tmp_path / "in"), tmp_path / "in", tmp_path / "out")
    assert report["identities_in_several_splits"] == ["id1"]
    assert report["duplicates"] == [["test/test/id1#again", "train/train/id1#first"]]


def test_any_number_of_workers_and_jobs_writes_the_same_bytes(made, tree, tmp_path):
    expected = content(made[0])
    assert len([name for name in expected if "array_record" in name]) > 4
    prepare.prepare(make(tree), tree, tmp_path / "workers", workers=2)
    assert content(tmp_path / "workers") == expected
    for job in (2, 0, 1):
        assert prepare.prepare(make(tree), tree, tmp_path / f"job{job}", job=(job, 3)) is None
        shutil.copytree(tmp_path / f"job{job}", tmp_path / "jobs", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="not finished: start prepare_data.py again"):
        open_clips(tmp_path / "jobs")
    prepare.prepare(make(tree), tree, tmp_path / "jobs")
    assert content(tmp_path / "jobs") == expected


def test_a_second_run_finds_it_there(made, tree, monkeypatch):
    monkeypatch.setattr(prepare, "write_shard", None)
    expected = content(made[0])
    assert prepare.prepare(make(tree), tree, made[0]) == made[1]
    assert content(made[0]) == expected


@pytest.mark.parametrize("moment", range(12))
def test_an_interrupted_merge_goes_on(made, tree, tmp_path, monkeypatch, moment):
    replace, count = os.replace, 0

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count == moment + 1:
            raise KeyboardInterrupt
        replace(*arguments)

    plan, work = make(tree), tmp_path / "unfinished"
    prepare.prepare(plan, tree, tmp_path, job=(0, 2))
    prepare.prepare(plan, tree, tmp_path, job=(1, 2))
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge.merge(plan, work, prepare.target_folder(tmp_path, plan))
    monkeypatch.undo()
    prepare.prepare(plan, tree, tmp_path)
    assert content(tmp_path) == content(made[0])


def test_shards_of_an_earlier_version_have_no_hash_and_are_merged(tree, tmp_path):
    plan = make(tree)
    prepare.prepare(plan, tree, tmp_path, job=(0, 2))
    file = shards.shard_files(tmp_path / "unfinished", plan.shards[0])[1]
    file.write_text(
        json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != "sha256"})
    )
    prepare.prepare(plan, tree, tmp_path)
    hashes = [own for split in read_shard_hashes(tmp_path).values() for own in split]
    assert hashes.count(None) == 1 and len(hashes) > 4


def test_a_merge_that_is_killed_at_its_very_end_leaves_a_whole_data_set(tree, tmp_path, monkeypatch):
    plan = make(tree)
    target = prepare.target_folder(tmp_path, plan)
    monkeypatch.setattr(Path, "rmdir", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(plan, tree, tmp_path)
    monkeypatch.undo()
    prepare.prepare(plan, tree, tmp_path)
    assert len(open_clips(target)) == len(open_clips(tmp_path)) == 9


def interrupt(*_):
    raise KeyboardInterrupt


class FullDisk:
    """A writer of records that finds the disk full."""

    def __init__(self, *_):
        pass

    def write(self, record):
        pass

    def close(self):
        raise RuntimeError("write() failed: No space left on device")


def test_a_full_disk_is_one_line_and_what_is_done_stays(made, tree, tmp_path, monkeypatch):
    plan, real, opened = make(tree), shards.array_record_module.ArrayRecordWriter, []

    def open_writer(path, options):
        opened.append(path)
        return (FullDisk if len(opened) == 4 else real)(path, options)

    monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", open_writer)
    with pytest.raises(OSError, match=r"unfinished: cannot be written .*No space left.*: free space there, then start"):
        prepare.prepare(plan, tree, tmp_path)
    assert not list((tmp_path / "unfinished").glob("*.partial"))
    assert len(list((tmp_path / "unfinished").glob("shard*.json"))) == 3
    prepare.prepare(plan, tree, tmp_path)
    assert content(tmp_path) == content(made[0])


def test_an_input_that_goes_away_or_changes_is_not_dropped(tmp_path):
    tree = trees.make_tree(tmp_path / "tree")
    plan = make(tree)
    (tree / "train/loose.mov").rename(tmp_path / "away.mov")
    with pytest.raises(ValueError, match="loose.mov: gone since the work began .*: start again when it is back"):
        prepare.prepare(plan, tree, tmp_path / "out")
    (tree / "train/loose.mov").write_bytes(b"another film")
    with pytest.raises(ValueError, match="loose.mov: has changed since the work began"):
        prepare.prepare(plan, tree, tmp_path / "out")
    (tmp_path / "away.mov").rename(tree / "train/loose.mov")
    assert prepare.prepare(plan, tree, tmp_path / "out")["dropped"] == len(trees.DROPPED)


@pytest.mark.parametrize("fault", [lambda file: file.unlink(), lambda file: os.truncate(file, 1000)])
def test_shards_that_were_not_copied_whole_are_written_anew(made, tree, tmp_path, fault):
    plan = make(tree)
    for job in range(2):
        prepare.prepare(plan, tree, tmp_path, job=(job, 2))
    last = [file for file in (tmp_path / "unfinished").glob("*.json") if json.loads(file.read_text()).get("clips")][-1]
    fault(last.with_suffix(".array_record"))
    with pytest.raises(ValueError, match=f"{last.stem}.array_record are missing or cut off: start again"):
        prepare.prepare(plan, tree, tmp_path)
    prepare.prepare(plan, tree, tmp_path)
    assert content(tmp_path) == content(made[0])


def test_what_is_complete_but_damaged_is_told(tree, tmp_path):
    prepare.prepare(make(tree), tree, tmp_path)
    next(tmp_path.rglob("*-train.array_record-00003*")).unlink()
    with pytest.raises(FileNotFoundError, match="00003-of-.* is missing"):
        prepare.prepare(make(tree), tree, tmp_path)


def test_a_worker_that_dies_is_told_with_what_it_had(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "write_shard", die)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished/shard-00003.77.partial").write_text("")
    name = make(tree).shards[3].items[0].name
    with pytest.raises(ValueError, match=f"a worker died, .*fewer --workers.*: {name}"):
        prepare.prepare(make(tree), tree, tmp_path, workers=2)


def die(*_, **__):
    os._exit(1)


def test_cropped_frames_as_jpeg_are_the_same_from_any_number_of_workers(tmp_path):
    tree = trees.make_tree(tmp_path / "tree")
    trees.raw_video(tree / "train/talk.mp4")
    for workers in (1, 2):
        plan = make(tree, CutOptions(image_size=trees.SIDE, crop="face", min_face_share=0.2))
        prepare.prepare(plan, tree, tmp_path / str(workers), workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert [row["name"] for row in tables(tmp_path / "1")["train"]] == ["train/talk.mp4@0"]


def test_what_lies_in_the_way_is_told_before_the_work(made, tree, tmp_path, monkeypatch):
    other = make(tree, CutOptions(image_size=16))
    with pytest.raises(FileExistsError, match="made of another input or with other options"):
        prepare.prepare(other, tree, made[0])
    prepare.prepare(make(tree), tree, tmp_path / "started", job=(0, 2))
    monkeypatch.setattr(prepare, "write_shard", None)
    with pytest.raises(FileExistsError, match="unfinished is of an interrupted run with another input"):
        prepare.prepare(other, tree, tmp_path / "started")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds other files"):
        prepare.prepare(other, tree, tmp_path)
    for inside in (tree, tree / "prepared"):
        with pytest.raises(ValueError, match="lies in the input .*: choose another output"):
            prepare.prepare(other, tree, inside)
    for job in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="shard is"):
            prepare.prepare(other, tree, tmp_path / "new", job=job)
    with pytest.raises(ValueError, match="workers is 0"):
        prepare.prepare(other, tree, tmp_path / "new", workers=0)
    with pytest.raises(ValueError, match="none.xml: no such file"):
        prepare.prepare(make(tree, CutOptions(image_size=16, detector="none.xml")), tree, tmp_path / "new")
    assert not (tmp_path / "new").exists()


HOLD = """
import pathlib, sys
from data_pipelines.preparation import prepare
with prepare._alone(pathlib.Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("theirs", "ours", "together"),
    [((0, 1), (0, 1), False), ((1, 3), (0, 1), False), ((0, 1), (2, 3), False), ((1, 3), (1, 3), False),
     ((1, 3), (2, 3), True)],
)  # fmt: skip
def test_two_runs_at_the_same_work_are_kept_apart(made, tree, tmp_path, theirs, ours, together):
    command = [sys.executable, "-c", HOLD, tmp_path / "out", *map(str, theirs)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "at work\n"
        if together:
            assert prepare.prepare(make(tree), tree, tmp_path / "out", job=ours) is None
        else:
            with pytest.raises(BlockingIOError, match="another run is at work there: wait until it has ended"):
                prepare.prepare(make(tree), tree, tmp_path / "out", job=ours)
            assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
        other.kill()
    prepare.prepare(make(tree), tree, tmp_path / "out")
    assert content(tmp_path / "out") == content(made[0])


def test_jobs_of_equal_process_numbers_on_two_machines_do_not_disturb_each_other(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    plan, met = make(tree), []
    write_text, cut = Path.write_text, shards._cut

    def meet(job):  # The first one is overtaken by a whole second one.
        if job not in met:
            met.append(job)
            job()

    def claim():
        prepare._claim(plan, tmp_path)

    def write():
        shards.write_shard(plan.shards[0], OPTIONS, tree, tmp_path)

    monkeypatch.setattr(Path, "write_text", lambda path, text: write_text(path, text) and meet(claim))
    claim()
    monkeypatch.setattr(Path, "write_text", write_text)
    monkeypatch.setattr(shards, "_cut", lambda *arguments: meet(write) or cut(*arguments))
    write()
    assert met == [claim, write]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"plan.json", *(path.name for path in shards.shard_files(tmp_path, plan.shards[0]))}


def test_nothing_but_broken_files_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_text("text")
    with pytest.raises(ValueError, match="all 1 items were dropped: .*dropped.csv says why"):
        prepare.prepare(make(tmp_path / "in"), tmp_path / "in", tmp_path / "out")


def test_where_all_was_dropped_other_options_may_be_tried(tmp_path):
    trees.movie(tmp_path / "in/a.mp4", 0, 4)
    small = dataclasses.replace(OPTIONS, min_side=1000)
    with pytest.raises(ValueError, match="all 1 items were dropped"):
        prepare.prepare(make(tmp_path / "in", small), tmp_path / "in", tmp_path / "out")
    assert prepare.prepare(make(tmp_path / "in"), tmp_path / "in", tmp_path / "out")["splits"]


@pytest.mark.parametrize(
    ("name", "keep", "message"),
    [("a.mkv", 0.6, "cut off: it tells of 2.96 s and ends at"), ("a.gif", 0.6, "cut off: the mark of a GIF's end")],
)
def test_what_is_cut_off_is_dropped_though_it_can_be_read(tmp_path, name, keep, message):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if name == "a.gif":
        trees.movie(path, 0, 50)
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width = stream.height = trees.SIDE
            for number in range(50):
                packets = stream.encode(av.VideoFrame.from_ndarray(trees.frame(number), format="rgb24"))
                if number == 49:
                    packets[0].duration = 25  # shown for a second
                container.mux(packets)
            container.mux(stream.encode(None))
    assert len(next(cutting.cut(path, "video", OPTIONS)).frames) == 50
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert len(list(video.read_frames(path))) > 20
    (dropped,) = cutting.cut(path, "video", OPTIONS)
    assert dropped.reason.startswith(message)


def test_a_raw_video_is_cropped_to_the_face(tmp_path):
    (tmp_path / "in").mkdir()
    trees.raw_video(tmp_path / "in/talk.mp4")
    plan = make_plan("cartoon", *find_items(tmp_path / "in"), CutOptions(image_size=64), test_share=0)
    prepare.prepare(plan, tmp_path / "in", tmp_path / "out")
    clips = PreparedClips(tmp_path / "out", "train")
    assert list(clips.lengths) == [12] and clips.name(0) == "talk.mp4@0"
    row = json.loads((tmp_path / "out/cartoon/1.0.0/metadata.json").read_text())["clips"]["train"][0]
    x, y, side, height = row["box"]
    assert side == height < 260 and abs(x + side / 2 - 270) < 40
    whole = next(iter(video.read_frames(tmp_path / "in/talk.mp4")))
    expected = transforms.resize(whole[y : y + side, x : x + side], 64, 64)
    assert np.abs(clips.frame(0, 0).astype(int) - expected).mean() < 2  # JPEG
