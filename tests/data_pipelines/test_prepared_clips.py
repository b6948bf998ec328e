"""Prepared clips that are damaged: what is told when they are opened, and what when a record is read."""

import json
import resource
import shutil

import pytest

from data_pipelines import clips
from data_pipelines.builders import puppets as builder
from data_pipelines.clip_source import BadRecord
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.plan import make_plan
from data_pipelines.preparation.prepare import prepare
from data_pipelines.prepared_clips import PreparedClips, read_tables
from tests.data_pipelines.preparation import trees


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Data sets of puppets, which have no sizes of shards in their metadata, and of a folder, which have."""
    folder = tmp_path_factory.mktemp("whole")
    builder.prepare(folder / "puppets", builder.PuppetsConfig(real_clips=2, cartoon_clips=1, test_clips=1, frames=8))
    tree = trees.make_tree(folder / "tree")
    options = CutOptions(image_size=64, jpeg_quality=0, min_side=8)
    plan = make_plan("train", *find_items(tree), options, shard_bytes=30000)
    assert len(plan.shards) > 3
    prepare(plan, tree, folder / "clips")
    return folder


SPLITS = {"puppets": "real_train", "clips": "train"}


@pytest.fixture(params=SPLITS)
def data(request, whole, tmp_path):
    """(path, split, its last shard) of a copy that may be damaged."""
    shutil.copytree(whole / request.param, tmp_path / "data")
    split = SPLITS[request.param]
    return tmp_path / "data", split, sorted((tmp_path / "data").rglob(f"*-{split}.array_record*"))[-1]


def test_a_missing_shard_is_told_at_the_start(data):
    path, split, shard = data
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"{shard.name} is missing: copy the shard again"):
        clips.open_clips(path, split)


def test_a_truncated_shard_is_told_at_the_start(data):
    path, split, shard = data
    shard.write_bytes(shard.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=rf"{shard.name} has \d+ (bytes|readable records) in place of \d+: copy"):
        clips.open_clips(path, split)


def test_as_many_files_may_be_open_as_there_are_shards(whole):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        clips.open_clips(whole / "clips", "train")
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_shards_than_files_may_be_open_are_told_at_the_start(whole, monkeypatch):
    count = len(PreparedClips(whole / "clips", "train").shard_files)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, count + 100))
    clips.open_clips(whole / "clips", "train")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, count + 99))
    with pytest.raises(ValueError, match=rf"{count} shards .* may open {count + 99} .*ulimit -n {count + 100}"):
        clips.open_clips(whole / "clips", "train")


def test_an_unreadable_description_is_told(data):
    path, split, _ = data
    info = next(path.rglob("dataset_info.json"))
    info.write_text(info.read_text()[:40])
    with pytest.raises(ValueError, match="1.0.0: its JSON files cannot be read"):
        clips.open_clips(path, split)


def test_a_tfds_data_set_of_somebody_else_is_told(data):
    path, split, _ = data
    next(path.rglob("metadata.json")).write_text(json.dumps({"kind": "other"}))
    with pytest.raises(ValueError, match="has no table of clips"):
        clips.open_clips(path, split)


def test_a_damaged_record_is_named_with_clip_and_shard_and_the_others_are_read(data):
    path, split, shard = data
    content = bytearray(shard.read_bytes())
    where = content.index(b"IDAT") + 20
    content[where : where + 8] = b"damaged!"
    shard.write_bytes(content)
    source, bad, good = PreparedClips(path, split), [], 0
    for clip in range(len(source)):
        for index in range(source.lengths[clip]):
            try:
                good += source.frame(clip, index).shape == (64, 64, 3)
            except BadRecord as error:
                bad.append(str(error))
                assert str(error).startswith(f"frame {index} of clip {source.name(clip)} in {shard}: ")
    assert len(bad) == 1 and good == sum(source.lengths) - 1


def test_an_unfinished_preparation_is_told(whole, tmp_path):
    tree = whole / "tree"
    prepare(make_plan("clips", *find_items(tree), CutOptions(image_size=32)), tree, tmp_path / "out", job=(0, 2))
    for opened in (clips.open_clips, read_tables):
        with pytest.raises(ValueError, match="out: the preparation is not finished: start prepare_data.py again"):
            opened(tmp_path / "out")


def test_without_a_split_it_is_train(whole):
    assert len(clips.open_clips(whole / "clips")) == len(read_tables(whole / "clips")["train"])
