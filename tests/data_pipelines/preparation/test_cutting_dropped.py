"""What is in no clip, and why: dropped frames, broken items, wrong options. Faces are red squares on grey walls."""

import cv2
import pytest

from data_pipelines import detectors, transforms, video
from data_pipelines.preparation import cutting
from data_pipelines.preparation.cut_options import CROPS, CutOptions
from data_pipelines.preparation.cutting import Dropped
from tests.data_pipelines.preparation.films import AWAY, SMALL, Film, cut, cut_frames, ranges, see_red, shot, textured
from tests.data_pipelines.video_files import write


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    see_red(monkeypatch)


@pytest.mark.parametrize(
    ("film", "changes", "expected"),
    [
        ([shot()] * 6, {}, [(0, 5, "no face seen in 6 looks: another --detector may find one")]),
        ([shot(60)] * 3 + [AWAY] * 7, {}, [(0, 9, "the face is seen in 3 of 10 looks, --min_face_share is 0.5")]),
        ([shot(60)] * 6, {"min_frames": 7}, [(0, 5, "6 frames, --min_frames is 7")]),
        ([shot(60)], {}, [(0, 0, "1 frame, --min_frames is 2")]),
        ([shot(60)] * 6, {"image_size": 128}, [(0, 5, "crop of 57 pixels, --min_side is 64")]),
        ([shot(60)] * 6, {"min_side": 58}, [(0, 5, "crop of 57 pixels, --min_side is 58")]),
        (
            [AWAY] + [shot(60)] * 4,
            {"min_frames": 5},
            [
                (0, 0, "the face is seen from frame 1 on"),
                (1, 4, "the face is in the crop in 4 frames, --min_frames is 5"),
            ],
        ),
        (
            [shot(60)] * 10 + [shot(wall=150)] * 9,
            {},
            [(0, 9, (46, 14, 57, 57)), (10, 18, "no face seen in 9 looks: another --detector may find one")],
        ),
        (
            [shot(60)] * 126 + [shot(60, wall=150)] * 4,
            {},
            [(0, 125, (46, 14, 57, 57)), (126, 129, "shorter than the 5 frames from one look for a face to the next")],
        ),
        ([shot()[:, :96]] * 6, {"image_size": 200}, [(None, None, "crop of 96 pixels, --min_side is 100")]),
        ([shot()[:, :96]] * 3, {"min_frames": 4}, [(None, None, "3 frames, --min_frames is 4")]),
        ([shot()] * 3, {"crop": "none", "min_frames": 4}, [(0, 2, "3 frames, --min_frames is 4")]),
        (
            [shot()] * 3,
            {"crop": "100,0,80,40"},
            [(None, None, "box 100,0,80,40 reaches beyond the picture of 160×96: keep it within 0,0,160,96")],
        ),
        ([shot()] * 3, {"crop": "0,0,80,40", "min_side": 41}, [(None, None, "crop of 40 pixels, --min_side is 41")]),
    ],
)
def test_what_is_dropped_says_the_values_and_the_option(tmp_path, film, changes, expected):
    assert ranges(cut_frames(tmp_path, film, **changes)) == expected


def test_the_limits_themselves_are_enough(tmp_path):
    limits = {"min_frames": 10, "min_side": 57, "min_face_share": 0.3}
    (clip, _) = cut_frames(tmp_path, [shot(60)] * 10 + [AWAY] * 3, **limits)
    assert len(clip.frames) == 10
    (clip, _) = cut_frames(tmp_path / "share", [shot(60)] * 3 + [AWAY] * 7, min_face_share=0.3)
    assert len(clip.frames) == 3


def test_an_image_without_a_face_is_dropped(tmp_path):
    (tmp_path / "a.png").write_bytes(transforms.encode_png(shot()))
    (dropped,) = cut(tmp_path / "a.png", "image")
    assert dropped == Dropped(0, 0, "no face seen in 1 look: another --detector may find one")


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        ("video", "gone.mp4", None, "no such file"),
        ("video", "a.mp4", b"hello", "not a video"),
        ("video", "half.mp4", "half", "not a video"),
        ("frames", "gone", None, "no such file"),
        ("strip", "a.png", b"hello", "not an image"),
        ("strip", "b.png", transforms.encode_png(shot()), "width 160 is no multiple of the height 96"),
        ("image", "gone.png", None, "No such file"),
        ("image", "a.png", b"", "not an image"),
    ],
)
def test_a_broken_file_gives_one_reason_and_nothing_else(tmp_path, kind, name, content, message):
    if content == "half":
        whole = write(tmp_path / "whole.mp4", [shot(60)] * 9).read_bytes()
        content = whole[: len(whole) // 2]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for crop in (*CROPS, "8,8,64,64"):
        (dropped,) = cut(tmp_path / name, kind, crop=crop)
        assert dropped[:2] == (None, None) and message in dropped.reason
        assert str(tmp_path) not in dropped.reason and "\n" not in dropped.reason


@pytest.mark.parametrize("content", [b"broken", transforms.encode_png(shot(60)[:90])])
@pytest.mark.parametrize("crop", (*CROPS, "8,8,64,64"))
def test_a_broken_frame_after_good_scenes_lets_nothing_through(tmp_path, content, crop):
    folder = write(tmp_path / "frames", [shot(60)] * 20 + [shot(60, wall=150)] * 20)
    assert len(cut(folder)) == 2
    (folder / "000037.png").write_bytes(content)
    (dropped,) = cut(folder, crop=crop)
    assert dropped[:2] == (None, None)
    assert ("000037.png: not an image" if content == b"broken" else "frame 37 is 160×90") in dropped.reason


def test_a_damaged_video_gives_one_reason_and_nothing_else(tmp_path):
    path = write(tmp_path / "film.mp4", textured(40, 96, 160))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"moov") - 4
    middle = (data.index(b"mdat") + end) // 2
    data[middle:end] = bytes(end - middle)
    path.write_bytes(data)
    for crop in (*CROPS, "8,8,64,64"):
        (dropped,) = cut(path, "video", crop=crop)
        assert dropped[:2] == (None, None) and dropped.reason.startswith("broken after")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), cv2.error("Input/output error\nin a line 2")])
def test_what_else_fails_while_reading_gives_one_reason_too(tmp_path, monkeypatch, error):
    def fail(image):
        raise error

    monkeypatch.setattr(detectors, "open_detector", lambda path="": fail)
    assert cut_frames(tmp_path, [shot(60)] * 4) == [Dropped(None, None, "Input/output error")]


def test_an_item_that_changes_between_the_readings_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "_open", lambda path, kind: Film(100, last=80))
    parts = cutting.cut(tmp_path / "a", "frames", SMALL)
    assert len(next(parts).frames) == 50
    with pytest.raises(video.VideoError, match="a: changed while it was cut"):
        next(parts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size is 0: use a whole number from 1 on"),
        ({"image_size": 64.0}, "image_size is 64.0: use a whole number"),
        ({"crop": "square"}, "crop is 'square': choose auto, face, none or a box \\('square': not a box"),
        ({"crop": "0,0,9,0"}, "crop is '0,0,9,0': choose .*: width and height are at least 1"),
        ({"crop_scale": 0.9}, "crop_scale is 0.9: use a number from 1 on"),
        ({"crop_scale": float("nan")}, "crop_scale is nan"),
        ({"crop_scale": float("inf")}, "crop_scale is inf"),
        ({"min_side": -1}, "min_side is -1"),
        ({"min_frames": 0}, "min_frames is 0"),
        ({"min_frames": 64, "max_frames": 100}, "max_frames is 100: use 127 or more with min_frames = 64"),
        ({"max_frames": 0, "min_frames": 1}, "max_frames is 0: use 1 or more"),
        ({"min_face_share": 1.1}, "min_face_share is 1.1: use 0 to 1"),
        ({"min_face_share": float("nan")}, "min_face_share is nan"),
        ({"jpeg_quality": 101}, "jpeg_quality is 101: use a whole number from 0 to 100"),
        ({"jpeg_quality": -1}, "jpeg_quality is -1"),
    ],
)
def test_wrong_options_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        CutOptions(**changes)
    assert "\n" not in str(caught.value)


def test_a_detector_that_cannot_be_opened_and_another_kind_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match="^detector is .*face.onnx: no such file"):
        CutOptions(detector=str(tmp_path / "face.onnx"))
    with pytest.raises(ValueError, match="kind is 'movie': choose video, frames, strip, image"):
        cutting.cut(tmp_path, "movie", CutOptions())
