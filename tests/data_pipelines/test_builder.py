import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import puppets as drawing
from data_pipelines import transforms
from data_pipelines.builders import puppets

ROOT = Path(__file__).parents[2]
CONFIG = puppets.PuppetsConfig(seed=3, real_clips=3, cartoon_clips=2, test_clips=1, frames=3)
CLIPS = {"real_train": 3, "cartoon_train": 2, "real_test": 1, "cartoon_test": 1}


def records(path, split):
    builder = tfds.builder_from_directory(path / "puppets" / "1.0.0")
    return list(builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()}))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("prepared") / "puppets64"
    assert puppets.prepare(path, CONFIG)
    return path


@pytest.mark.parametrize("split", CLIPS)
def test_a_record_is_a_frame_in_the_order_of_generation(prepared, split):
    found = records(prepared, split)
    assert [(r["clip"], r["frame"], r["identity"]) for r in found] == [
        (clip, frame, clip) for clip in range(CLIPS[split]) for frame in range(CONFIG.frames)
    ]
    domain, part = split.split("_")
    for clip in range(CLIPS[split]):
        identity = drawing.sample_identity(domain, part, CONFIG.seed, clip)
        motion = drawing.sample_motion(domain, part, CONFIG.seed, clip, CONFIG.frames)
        for frame in range(CONFIG.frames):
            record = found[clip * CONFIG.frames + frame]
            np.testing.assert_array_equal(record["motion"], motion[frame])
            picture = drawing.render(identity, motion[frame], CONFIG.image_size)
            np.testing.assert_array_equal(transforms.decode(record["image"]), picture)


def test_the_metadata_tells_configuration_motion_and_clips(prepared):
    metadata = tfds.builder_from_directory(prepared / "puppets" / "1.0.0").info.metadata
    assert metadata["config"] == dataclasses.asdict(CONFIG)
    assert tuple(metadata["motion_names"]) == drawing.MOTION_NAMES
    assert {split: len(table) for split, table in metadata["clips"].items()} == CLIPS
    assert metadata["clips"]["cartoon_train"][1] == dict(name="cartoon_train_00001", identity=1, start=3, length=3)


def test_only_the_data_set_is_left(prepared):
    assert [path.name for path in prepared.iterdir()] == ["puppets"]
    assert [path.name for path in (prepared / "puppets").iterdir()] == ["1.0.0"]


def test_several_processes_write_the_same(prepared, tmp_path):
    assert puppets.prepare(tmp_path, CONFIG, workers=2)
    for split in CLIPS:
        for one, two in zip(records(prepared, split), records(tmp_path, split), strict=True):
            assert one["image"] == two["image"]
            np.testing.assert_array_equal(one["motion"], two["motion"])


def test_large_pictures_are_jpeg(tmp_path):
    config = puppets.PuppetsConfig(image_size=160, real_clips=1, cartoon_clips=1, test_clips=1, frames=2)
    assert puppets.prepare(tmp_path, config)
    record = records(tmp_path, "real_train")[0]
    assert record["image"].startswith(b"\xff\xd8")
    identity = drawing.sample_identity("real", "train", 0, 0)
    picture = drawing.render(identity, record["motion"], 160).astype(int)
    assert np.abs(transforms.decode(record["image"]) - picture).mean() < 2  # 0.8 at quality 95


def test_a_second_call_finds_the_same_and_refuses_another(prepared):
    before = sorted((path, path.stat().st_mtime_ns) for path in prepared.rglob("*"))
    assert not puppets.prepare(prepared, CONFIG)
    with pytest.raises(FileExistsError, match=r"seed 3 \(asked: 4\), frames 3 \(asked: 5\).*delete it"):
        puppets.prepare(prepared, dataclasses.replace(CONFIG, seed=4, frames=5))
    with pytest.raises(FileExistsError, match=r"image_size 64 \(asked: 128\)"):
        puppets.prepare(prepared, dataclasses.replace(CONFIG, image_size=128))
    assert sorted((path, path.stat().st_mtime_ns) for path in prepared.rglob("*")) == before


def test_a_folder_in_use_or_half_written_is_refused(tmp_path):
    half = tmp_path / "half" / "puppets" / "incomplete.ABC_1.0.0"
    half.mkdir(parents=True)
    (half / "puppets-real_train.array_record").touch()
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "half", tmp_path / "file"):
        with pytest.raises(FileExistsError, match=f"{path.name} is in use .* delete it"):
            puppets.prepare(path, CONFIG)


def test_an_interrupted_run_leaves_the_way_free(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(puppets, "render_clip", interrupt)
        puppets.prepare(tmp_path, CONFIG)
    assert puppets.prepare(tmp_path, CONFIG)


@pytest.mark.parametrize(
    "change", [dict(image_size=32), dict(seed=-1), dict(real_clips=0), dict(frames=1), dict(jpeg_quality=101)]
)
def test_numbers_out_of_range_are_named(change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"{name} is {value}: use a whole number from"):
        puppets.PuppetsConfig(**change)


def test_writing_and_reading_need_no_tensorflow(tmp_path):
    code = f"""
import sys
from data_pipelines import clips, loaders
from data_pipelines.builders import puppets
puppets.prepare({str(tmp_path)!r}, puppets.PuppetsConfig(real_clips=1, cartoon_clips=1, test_clips=1, frames=2))
source = clips.open_clips({str(tmp_path)!r}, "real_train")
next(loaders.pair_batches(source, 2, 64, 0))
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_script_prepares_then_finds_then_refuses(tmp_path):
    def run(*arguments):
        command = [sys.executable, "scripts/prepare_data.py", *arguments]
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    small = ["--real_clips=1", "--cartoon_clips=1", "--test_clips=1", "--frames=2", "--workers=1"]
    asked = ["puppets", f"--output={tmp_path / 'out'}", "--seed=5", *small]
    first = run(*asked)
    assert first.returncode == 0 and first.stdout.endswith("out: written\n"), first.stderr
    assert records(tmp_path / "out", "real_test")[0]["motion"].shape == (len(drawing.MOTION_NAMES),)
    again = run(*asked)
    assert again.returncode == 0 and "already there" in again.stdout
    other = run(*asked, "--seed=6")
    assert other.returncode == 1 and other.stderr.splitlines()[-1].startswith("error: ") and "seed 5" in other.stderr
    unknown = run("puppies", f"--output={tmp_path / 'none'}")
    assert unknown.returncode != 0 and "puppies" in unknown.stdout + unknown.stderr
