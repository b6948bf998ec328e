"""The options of scripts/reenact.py, used together where they go together: each call starts a Python of its own."""

import os
import shutil
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from data_pipelines import comments, puppets, transforms, video, video_writer
from tests.conftest import LEAN
from tests.data_pipelines.video_files import film, packets
from tests.scripts.trainings import ROOT
from toontalker_jax.checkpoints import load_model, save_model
from toontalker_jax.media import Options, open_driver, open_source
from toontalker_jax.reenactment.smoothing import smooth
from toontalker_jax.reenactment.templates import load_template, network_hash
from toontalker_jax.reenactment.transfer import Reenactor
from toontalker_jax.video_reenactor import VideoReenactor

RATE = Fraction(30000, 1001)


@pytest.fixture(scope="module")
def run(run_script, inputs):
    """`run(options…)`: reenact.py with the inputs' checkpoint, type r2r, two frames at once."""

    def run(**options):
        options = {"checkpoint": inputs / "model", "type": "r2r", "batch_size": 2} | options
        return run_script("reenact", *(f"--{name}={value}" for name, value in options.items()))

    return run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_model):
    """Networks; pictures of 96×128 with a real puppet's face; a driver with sound at 30000/1001 frames/s."""
    folder = tmp_path_factory.mktemp("inputs")
    save_model(folder / "model", tiny_model(config=LEAN))
    save_model(folder / "other", tiny_model(seed=1, config=LEAN))
    save_model(folder / "real", tiny_model(("real",), config=LEAN))
    (folder / "sources").mkdir()
    for number in range(2):
        identity = puppets.sample_identity("real", "test", 0, number + 1)  # that the detector finds at this size
        picture = puppets.render(identity, puppets.sample_motion("real", "test", 0, number + 1, 1)[0], 128)[16:112]
        cv2.imwrite(str(folder / "sources" / f"face{number}.png"), picture[..., ::-1])
    film(folder / "driver.mp4", 8, RATE, sound="aac", seconds=1)
    (folder / "twins").mkdir()
    for suffix in ("png", "jpg"):
        (folder / "twins" / f"face.{suffix}").touch()
    return folder


def prepared(inputs, view, **options):
    reenactor = Reenactor(load_model(inputs / "model"), "r2r", batch_size=2, **options)
    reenactor.prepare(view)
    return reenactor


def central(picture):
    return transforms.to_square(picture, 64)


def written(done, path):
    assert done.returncode == 0, done.stderr
    return np.stack(list(video.read_frames(path)))


def test_rate_sound_section_and_tag_are_the_drivers(run, inputs, tmp_path):
    options = {"source_path": inputs / "sources/face0.png", "driving_path": inputs / "driver.mp4"}
    done = run(**options, save_path=tmp_path / "whole.mp4")
    assert len(written(done, tmp_path / "whole.mp4")) == 8
    assert video.probe(tmp_path / "whole.mp4").frame_rate == RATE
    assert packets(tmp_path / "whole.mp4", "audio") == packets(inputs / "driver.mp4", "audio")
    tag = network_hash(load_model(inputs / "model"))[:16]
    assert comments.of_file(tmp_path / "whole.mp4") == f"Synthetic: face reenactment by ToonTalker-JAX, network {tag}"

    cut = {"start": 3 / float(RATE), "max_frames": 4, "sound": "false", "no_tag": "true"}
    frames = written(run(**options, save_path=tmp_path / "cut", **cut), tmp_path / "cut")
    driving = [central(frame) for frame in video.read_frames(inputs / "driver.mp4")]
    reenactor = prepared(inputs, central(video.read_image(inputs / "sources/face0.png")))
    np.testing.assert_array_equal(frames, np.stack(list(reenactor.frames(driving[3:7]))))
    assert comments.of_file(tmp_path / "cut") == ""


def test_the_result_goes_back_into_the_whole_picture(run, inputs, tmp_path):
    options = {"source_path": inputs / "sources/face0.png", "driving_path": inputs / "driver.mp4", "max_frames": 2}
    done = run(**options, save_path=tmp_path / "out", source_crop="30,10,70,64", paste_back="true", side_by_side="true")
    frames, picture = written(done, tmp_path / "out"), video.read_image(inputs / "sources/face0.png")
    assert frames.shape[1:] == (96, 128 + 96 + 128, 3)  # source | driver | result
    np.testing.assert_array_equal(frames[0][:, :128], picture)
    driving = [central(frame) for frame in video.read_frames(inputs / "driver.mp4")]
    np.testing.assert_array_equal(frames[1][:, 128:224], transforms.resize(driving[1], 96, 96))
    result, box = frames[1][:, 224:], (slice(10, 74), slice(33, 97))  # the central square of 30,10,70,64
    outside = np.ones((96, 128), bool)
    outside[box] = False
    np.testing.assert_array_equal(result[outside], picture[outside])
    expected = list(prepared(inputs, picture[box]).frames(driving))[1]
    np.testing.assert_array_equal(result[box][20:44, 20:44], expected[20:44, 20:44])  # within the feathered edge


def test_a_motion_template_replaces_the_driver(run, inputs, tmp_path):
    options = {"save_path": tmp_path / "out", "reference_frame": 3, "motion_scale": 1.5, "smooth": 0.7}
    source = inputs / "sources/face0.png"
    motion = tmp_path / "motion.npz"
    done = run(source_path=source, driving_path=inputs / "driver.mp4", save_motion=motion, **options)
    frames = written(done, tmp_path / "out")
    reenactor = prepared(inputs, central(video.read_image(source)), motion_scale=1.5)
    codes = list(reenactor.codes(map(central, video.read_frames(inputs / "driver.mp4"))))
    np.testing.assert_array_equal(load_template(motion).codes, np.stack(codes))
    smoothed = list(smooth(codes, 0.7))
    reenactor.set_reference_code(smoothed[3])
    np.testing.assert_array_equal(frames, np.stack(list(reenactor.render(smoothed))))

    shutil.rmtree(tmp_path / "out")
    again = run(source_path=source, driving_path=motion, **options)
    np.testing.assert_array_equal(frames, written(again, tmp_path / "out"))
    refused = run(source_path=source, driving_path=motion, save_path=tmp_path / "no", checkpoint=inputs / "other")
    assert refused.returncode == 1 and "made by network" in refused.stderr and not (tmp_path / "no").exists()


def test_the_best_reference_is_the_frame_like_the_source(run, inputs, tmp_path):
    driver = tmp_path / "driver"
    with video_writer.open_writer(driver, 25) as writer:
        for frame in video.read_frames(inputs / "driver.mp4"):
            writer.write(central(frame))
    view = central(video.read_image(inputs / "sources/face1.png"))
    (driver / "000005.png").write_bytes(transforms.encode_png(view))  # the source's own motion, at frame 5
    source = inputs / "sources/face1.png"
    done = run(source_path=source, driving_path=driver, save_path=tmp_path / "out", reference_frame="best")
    frames = written(done, tmp_path / "out")
    assert "reference frame 5" in done.stdout
    reenactor = prepared(inputs, view)
    codes = list(reenactor.codes(video.read_frames(driver)))
    reenactor.set_reference_code(codes[5])
    np.testing.assert_array_equal(frames, np.stack(list(reenactor.render(codes))))


def test_many_at_once_and_one_bad_file_stops_only_itself(run, inputs, tmp_path):
    (tmp_path / "drivers").mkdir()
    shutil.copy(inputs / "driver.mp4", tmp_path / "drivers/a.mp4")
    (tmp_path / "drivers/broken.mp4").write_bytes(b"no video")
    with video_writer.open_writer(tmp_path / "drivers/c.mp4", 10) as writer:
        for frame in reversed(list(video.read_frames(inputs / "driver.mp4"))):
            writer.write(frame)
    film(tmp_path / "drivers/d.avi", 5, codec="mpeg4", sound="adpcm_ms")  # which an mp4 cannot hold
    for still in ("e.1", "e.2"):  # folders, whose names have no suffix
        (tmp_path / "drivers" / still).mkdir()
        shutil.copy(inputs / "sources/face0.png", tmp_path / "drivers" / still)
    pattern = tmp_path / "drivers/*"
    asked = {"max_frames": 3, "source_crop": "auto", "crop_scale": 1.6, "smooth": 0.5}
    done = run(source_path=inputs / "sources", driving_path=pattern, output_dir=tmp_path / "out", size=64, **asked)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "broken.mp4" in errors[0] and "adpcm_ms" in errors[1]
    assert len(errors) == 2 and "2 failed" in done.stderr  # a driver is looked at once, not for each source
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"face{source}--{driver}.mp4" for source in (0, 1) for driver in ("a", "c", "e.1", "e.2")]
    # The last pair, made after three others and from motion known as a whole, equals one made alone as it comes.
    alone = VideoReenactor(inputs / "model", Options(kind="r2r", batch_size=2, **asked))
    assert alone.write(inputs / "sources/face1.png", tmp_path / "drivers/c.mp4", tmp_path / "c.mp4").frames == 3
    last = [np.stack(list(video.read_frames(path))) for path in (tmp_path / "out/face1--c.mp4", tmp_path / "c.mp4")]
    np.testing.assert_array_equal(*last)
    other = np.stack(list(video.read_frames(tmp_path / "out/face1--a.mp4")))
    assert (other != last[0]).any()


def test_python_takes_arrays_and_keeps_the_motion(inputs, tmp_path):
    picture = video.read_image(inputs / "sources/face0.png")
    driving = list(video.read_frames(inputs / "driver.mp4"))
    reenactor = VideoReenactor(inputs / "model", Options(kind="r2r", batch_size=2))
    got = np.stack(list(reenactor.frames(picture, driving)))
    expected = prepared(inputs, central(picture)).frames(map(central, driving))
    np.testing.assert_array_equal(got, np.stack(list(expected)))
    motion = reenactor.motion(inputs / "driver.mp4")
    np.testing.assert_array_equal(got, np.stack(list(reenactor.frames(picture, driving, motion))))
    source = open_source(inputs / "sources/face0.png", reenactor.options).put_down()
    assert source.picture is None  # and is read again
    np.testing.assert_array_equal(got, np.stack(list(reenactor.frames(source, driving, motion))))
    written = reenactor.write(picture, driving, tmp_path / "out", motion)
    assert (written.frames, written.height, written.width, written.frame_rate) == (8, 64, 64, 25)
    np.testing.assert_array_equal(got, np.stack(list(video.read_frames(tmp_path / "out"))))


def test_what_an_array_or_foreign_motion_cannot_serve_is_refused(inputs):
    picture, driving = np.zeros((64, 64, 3), np.uint8), [np.zeros((64, 64, 3), np.uint8)] * 2
    reenactor = VideoReenactor(inputs / "model", Options(kind="r2r", batch_size=2))
    motion = reenactor.motion(driving)
    with pytest.raises(ValueError, match="made by network"):
        next(reenactor.frames(picture, driving, motion._replace(network="0" * 64)))
    with pytest.raises(ValueError, match="no frames"):
        reenactor.motion([])
    with pytest.raises(ValueError, match="used whole"):
        open_driver(driving, Options(max_frames=1))
    with pytest.raises(ValueError, match=r"driver: frame 1 is \(32, 32, 3\), the first \(64, 64, 3\): use one size"):
        reenactor.motion([driving[0], driving[1][:32, :32]])
    for wrong in (picture[..., :1], picture.astype(np.float32), picture[:0], picture[0]):
        with pytest.raises(ValueError, match=r"source is .*: give RGB pictures, uint8 \[H, W, 3\]"):
            next(reenactor.frames(wrong, driving))
        with pytest.raises(ValueError, match="driver: frame 0 is .*: give RGB pictures"):
            reenactor.motion([wrong])


def test_python_overwrites_no_input(inputs, tmp_path):
    driver = tmp_path / "driver.mp4"
    shutil.copy(inputs / "driver.mp4", driver)
    before = driver.read_bytes()
    reenactor = VideoReenactor(inputs / "model", Options(kind="r2r"))
    with pytest.raises(ValueError, match="driver.mp4: would overwrite an input"):
        reenactor.write(inputs / "sources/face0.png", driver, tmp_path / "sources" / ".." / "driver.mp4")
    assert driver.read_bytes() == before


def test_a_motion_has_no_pictures_to_cut(tmp_path):
    with pytest.raises(ValueError, match="driving_crop cuts pictures; a motion template has none"):
        open_driver(tmp_path / "motion.npz", Options(driving_crop="auto"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"driving_path": "a/clip.mp4", "source_path": ""}, "--source_path or --driving_path is empty"),
        ({"save_path": ""}, "say where to write: one of --save_path and --output_dir"),
        ({"save_path": "out", "driving_path": "*/clip.mp4"}, "a/clip.mp4 and {0}/b/clip.mp4 differ in folder or"),
    ],
    ids=["empty", "nowhere", "twice"],
)
def test_where_things_lie_is_told_in_one_line(run, inputs, tmp_path, options, message):
    for name in "ab":
        (tmp_path / name).mkdir()
        shutil.copy(inputs / "driver.mp4", tmp_path / name / "clip.mp4")
    options = {"driving_path": "a/clip.mp4", "source_path": inputs / "sources/face0.png"} | options
    options["driving_path"] = tmp_path / options["driving_path"]
    done = run(**options)
    assert done.returncode == 1 and message.format(tmp_path) in done.stderr and "Traceback" not in done.stderr


def test_a_bucket_without_its_extra_is_one_line(inputs, tmp_path):
    options = {"checkpoint": "gs://bucket/model", "save_path": tmp_path / "out.mp4"}
    options |= {"source_path": inputs / "sources/face0.png", "driving_path": inputs / "driver.mp4"}
    code = "import runpy, sys; sys.modules['gcsfs'] = None; runpy.run_path('scripts/reenact.py', run_name='__main__')"
    command = [sys.executable, "-c", code, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "error: Please install gcsfs" in done.stderr and "Traceback" not in done.stderr


def test_a_home_folder_is_found(inputs, tmp_path):
    shutil.copy(inputs / "driver.mp4", tmp_path)
    code = "from scripts.reenactments.files import find; print(*(find(f'~/{n}', ()) for n in ('driver.mp4', '*.mp4')))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, cwd=ROOT
    )
    path = tmp_path / "driver.mp4"
    assert done.stdout == f"{([path], False)} {([path], True)}\n", done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "x2y"},
        {"motion": "fast"},
        {"fit": "squash"},
        {"crop_scale": 0.5},
        {"batch_size": 0},
        {"reference_frame": -1},
        {"motion_scale": 2.0, "motion": "absolute"},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Options(**wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_crop": "0,0,500,20"}, "box 0,0,500,20 reaches beyond the picture of 128×96"),
        ({"driving_crop": "auto"}, "--driving_crop=none"),  # flat grey frames hold no face
        ({"start": 5}, "no frame from 5 s"),
        ({"reference_frame": 8}, "reference_frame = 8, but there are 8 frames"),
        ({"reference_frame": "last"}, "must be a number from 0 on, or best"),
        ({"reference_frame": 2, "motion": "absolute"}, "absolute motion has none"),
        ({"smooth": -1}, "smooth = -1.0"),
        ({"motion_scale": "nan"}, "motion_scale = nan"),
        ({"detector": "none.xml"}, "none.xml"),
        ({"source_crop": "face"}, "'face': not a box"),
        # The network is looked at before any driver is opened, which may take long.
        ({"size": 256, "driving_path": "none.mp4"}, "--size=256, but the network's is 64"),
        ({"checkpoint": "none", "driving_path": "none.mp4"}, "none does not exist"),
        ({"checkpoint": "real", "type": "r2c", "driving_path": "none.mp4"}, "needs the domain 'cartoon'"),
        ({"save_motion": "motion.npy"}, "must end in .npz"),
        ({"source_path": "sources", "save_path": "out.mp4"}, "several results go into a folder"),
        ({"source_path": "twins", "save_path": "out"}, "face--driver.mp4: would be written twice"),
        ({"driving_path": "*.webm"}, "no file fits the pattern"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_one_line_and_writes_nothing(run, inputs, options, message):
    paths = {"source_path": "sources/face0.png", "driving_path": "driver.mp4", "save_path": "out.mp4"}
    options = paths | options
    named = (*paths, "save_motion", "checkpoint")
    options |= {name: inputs / value for name, value in options.items() if name in named}
    before = sorted(inputs.rglob("*"))
    done = run(**options)
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert message in error
    assert sorted(inputs.rglob("*")) == before
