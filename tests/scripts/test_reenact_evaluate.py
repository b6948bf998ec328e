"""scripts/reenact.py and scripts/evaluate.py from end to end, with a small network of random numbers."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import puppets, video, video_writer
from data_pipelines.builders import puppets as builder
from data_pipelines.clips import open_clips
from tests.conftest import LEAN
from toontalker_jax.checkpoints import load_model, save_model
from toontalker_jax.evaluation.motion_recovery import motion_recovery
from toontalker_jax.reenactment.transfer import Reenactor


@pytest.fixture(scope="module")
def run(run_script):
    """`run(script, arguments…)`, two frames at once."""
    return lambda script, *arguments: run_script(script, *arguments, "--batch_size=2")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_model):
    """A folder with a checkpoint, a source picture that is not square, and a driver of 5 frames as video and folder."""
    folder = tmp_path_factory.mktemp("inputs")
    save_model(folder / "model", tiny_model(config=LEAN))
    save_model(folder / "real_only", tiny_model(("real",), config=LEAN))
    cartoon = puppets.sample_identity("cartoon", "test", 0, 0)
    picture = puppets.render(cartoon, puppets.sample_motion("cartoon", "test", 0, 0, 1)[0], 96)[:, 8:72]
    cv2.imwrite(str(folder / "source.png"), picture[..., ::-1])
    real = puppets.sample_identity("real", "test", 0, 0)
    frames = [puppets.render(real, motion, 64) for motion in puppets.sample_motion("real", "test", 0, 0, 5)]
    for path in (folder / "driver.mp4", folder / "driver"):
        with video_writer.open_writer(path, Fraction(12)) as writer:
            for frame in frames:
                writer.write(frame)
    return folder


def test_a_video_is_reenacted_frame_by_frame(run, inputs, tmp_path):
    arguments = ["--checkpoint", inputs / "model", "--source_path", inputs / "source.png"]
    done = run("reenact", *arguments, "--driving_path", inputs / "driver", "--save_path", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "5 frames of 64×64" in done.stdout
    result = np.stack(list(video.read_frames(tmp_path / "out")))

    source = cv2.resize(video.read_image(inputs / "source.png")[16:80], (64, 64))  # the central square
    reenactor = Reenactor(load_model(inputs / "model"), "r2c", batch_size=2)
    reenactor.prepare(source)
    np.testing.assert_array_equal(result, np.stack(list(reenactor.frames(video.read_frames(inputs / "driver")))))


def test_an_mp4_keeps_the_frame_rate_and_length(run, inputs, tmp_path):
    arguments = ["--checkpoint", inputs / "model", "--source_path", inputs / "source.png", "--fit", "pad"]
    done = run("reenact", *arguments, "--driving_path", inputs / "driver.mp4", "--save_path", tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    assert video.probe(tmp_path / "out.mp4") == video.VideoInfo("video", Fraction(12), 5, 64, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "nowhere"}, "nowhere"),
        ({"checkpoint": "real_only"}, "needs the domain 'cartoon'"),
        ({"source_path": "nowhere.png"}, "nowhere.png"),
        ({"driving_path": "nowhere.mp4"}, "nowhere.mp4"),
        ({"save_path": "out.avi"}, ".avi"),
        ({"save_path": "driver.mp4", "driving_path": "driver.mp4"}, "would overwrite an input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_argument_is_one_line_and_writes_nothing(run, inputs, changes, message):
    before = sorted(inputs.iterdir())
    arguments = {"checkpoint": "model", "source_path": "source.png", "driving_path": "driver", "save_path": "out"}
    done = run("reenact", *(f"--{name}={inputs / value}" for name, value in (arguments | changes).items()))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert sorted(inputs.iterdir()) == before


def test_recovery_is_reported_with_its_grid(run, inputs, tmp_path):
    done = run(
        *("evaluate", "recovery", "--checkpoint", inputs / "model", "--types", "r2c", "--cases", 3, "--frames", 2),
        *("--output", tmp_path / "report.json", "--grid", tmp_path / "grid.png"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recovery"] == {"r2c": report["results"]["r2c"]["mean"]}
    assert len(report["results"]["r2c"]["per_case"]) == report["cases"] == 3
    assert report["checkpoint"] == str(inputs / "model")
    assert "evaluate.py recovery" in report["command"]
    assert video.read_image(tmp_path / "grid.png").shape == (2 * 64, 4 * 64, 3)


def test_parts_are_measured_one_by_one(run, inputs, tmp_path):
    done = run(
        *("evaluate", "parts", "--checkpoint", inputs / "model", "--types", "r2c", "--cases", 1, "--frames", 2),
        *("--output", tmp_path / "parts.json", "--grid", tmp_path / "parts.png"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "parts.json").read_text())
    reenactor = Reenactor(load_model(inputs / "model"), "r2c", batch_size=2)
    for part, mean in report["recovery"]["r2c"].items():
        (case,) = puppets.part_cases("r2c", part, "test", 0, 1, 2, 64)
        output = reenactor.transfer(case["source"], case["reference"], case["driving"])
        assert mean == motion_recovery(output, case["truth"], case["source"]), part
    assert set(report["recovery"]["r2c"]) == set(puppets.PARTS)
    assert video.read_image(tmp_path / "parts.png").shape == (len(puppets.PARTS) * 64, 4 * 64, 3)


def test_reconstruction_uses_the_frames_from_first_on(run, inputs, tmp_path):
    done = run(
        *("evaluate", "reconstruction", "--checkpoint", inputs / "real_only", "--driving_path", inputs / "driver"),
        *("--first", 2, "--output", tmp_path / "report.json", "--grid", tmp_path / "grid.png"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    frames = np.stack(list(video.read_frames(inputs / "driver")))[2:] / 255
    assert report["frames"] == 3
    assert report["copy_source_l1"]["over_frames"] == pytest.approx(np.abs(frames - frames[0]).mean())
    assert report["l1"]["over_frames"] > report["copy_source_l1"]["over_frames"]  # random numbers reconstruct nothing
    assert video.read_image(tmp_path / "grid.png").shape == (3 * 64, 4 * 64, 3)
    np.testing.assert_array_equal(
        video.read_image(tmp_path / "grid.png")[:64, :64], video.read_image(inputs / "driver" / "000002.png")
    )


@pytest.mark.parametrize("kind", ["folder", "prepared"])
def test_reconstruction_of_many_videos_has_both_averages(run, inputs, tmp_path, kind):
    path = tmp_path / "videos"
    if kind == "folder":
        shutil.copytree(inputs / "driver", path / "clip10")
        (path / "clip2").mkdir()
        for name in ("000000.png", "000004.png"):
            shutil.copy(inputs / "driver" / name, path / "clip2")
        (path / "notes.txt").touch()
        videos = [list(video.read_frames(path / name)) for name in ("clip2", "clip10")]
    else:
        builder.prepare(path, builder.PuppetsConfig(real_clips=1, cartoon_clips=1, test_clips=2, frames=4))
        clips = open_clips(path, "real_test")
        videos = [[clips.frame(clip, frame) for frame in range(4)] for clip in range(2)]
    done = run(
        *("evaluate", "reconstruction", "--checkpoint", inputs / "real_only", "--driving_path", path),
        *("--split", "real_test", "--output", tmp_path / "report.json"),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    copies = [np.abs(np.stack(frames) / 255 - frames[0] / 255).mean((1, 2, 3)) for frames in videos]
    assert (report["videos"], report["frames"]) == (2, sum(map(len, videos)))
    assert report["copy_source_l1"]["over_frames"] == pytest.approx(np.concatenate(copies).mean())
    assert report["copy_source_l1"]["over_videos"] == pytest.approx(np.mean([copy.mean() for copy in copies]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output={0}/full.json"], "full.json: must be a file that ends in .json"),
        (["--output={0}/a.json", "--grid={0}/full.png"], "full.png: must be a file that ends in .png"),
        (["--output={0}/a.json", "--types="], "--types names none"),
    ],
)
def test_where_no_report_can_go_is_told_first(run, inputs, tmp_path, options, message):
    for suffix in ("json", "png"):
        (tmp_path / f"full.{suffix}").mkdir()
    done = run("evaluate", "recovery", "--checkpoint", inputs / "model", *(o.format(tmp_path) for o in options))
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("command", [["benchmark", "layers"], ["torture_resume", "--workdir={0}/runs"]])
def test_other_reports_too(run_script, tmp_path, command):
    (tmp_path / "full.json").mkdir()
    done = run_script(*(part.format(tmp_path) for part in command), f"--output={tmp_path}/full.json")
    assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "full.json: must be a file that ends in .json" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["full.json"]


def test_one_frame_is_no_video(run, inputs, tmp_path):
    done = run(
        *("evaluate", "reconstruction", "--checkpoint", inputs / "real_only", "--driving_path", inputs / "driver.mp4"),
        *("--first=4", "--output", tmp_path / "report.json"),
    )
    assert done.returncode == 1 and "--first 4 leaves 1, at least 2 are needed" in done.stderr, done.stderr


def test_a_video_that_is_missing_in_the_users_folder_is_told_by_its_path(run, inputs, tmp_path):
    done = run(
        *("evaluate", "reconstruction", "--checkpoint", inputs / "real_only", "--driving_path", "~/no such video"),
        *("--output", tmp_path / "report.json"),
    )
    assert done.returncode == 1 and f"{Path.home()}/no such video: no such file" in done.stderr, done.stderr
