"""Clips of one item: which frames, which square. Faces are red squares on grey walls."""

import itertools
import tracemalloc

import numpy as np
import pytest

from data_pipelines import detectors, faces, puppets, transforms, video
from data_pipelines.faces import Box
from data_pipelines.preparation import cutting
from data_pipelines.preparation.cutting import CutClip, Dropped
from tests.data_pipelines.preparation.films import (
    AWAY,
    SMALL,
    Film,
    cut,
    cut_frames,
    ranges,
    see_red,
    shot,
    textured,
)
from tests.data_pipelines.video_files import write


@pytest.fixture(autouse=True)
def looks(monkeypatch):
    return see_red(monkeypatch)


def decoded(clip):
    return [transforms.decode(frame) for frame in clip.frames]


def refuse(*_):
    raise AssertionError("no detector is needed here")


@pytest.mark.parametrize("kind", ["video", "frames", "strip"])
@pytest.mark.parametrize("quality", [95, 0])
def test_square_frames_become_one_clip_as_they_are(tmp_path, monkeypatch, kind, quality):
    monkeypatch.setattr(detectors, "open_detector", refuse)
    frames = textured(7, 48, 48)
    if kind == "strip":
        path = tmp_path / "strip.png"
        path.write_bytes(transforms.encode_png(np.concatenate(frames, axis=1)))
    else:
        path = write(tmp_path / ("clip.mp4" if kind == "video" else "clip"), frames)
        frames = list(video.read_frames(path))
    (clip,) = cut(path, kind, jpeg_quality=quality, max_frames=3)
    small = [transforms.resize(frame, 32, 32) for frame in frames]
    expected = [transforms.encode_jpeg(f, quality) if quality else transforms.encode_png(f) for f in small]
    assert clip == CutClip(0, expected, None)


def test_scenes_become_clips_with_one_square_around_the_face_each(tmp_path):
    film = [shot(20 + n // 4) for n in range(30)] + [shot(90, 40, wall=150) for _ in range(25)]
    path = write(tmp_path / "film.mp4", film)
    first, second = cut(path, "video")
    assert (first.first, len(first.frames), second.first, len(second.frames)) == (0, 30, 30, 25)
    frames = list(video.read_frames(path))
    for clip, x, y in ((first, 23, 30), (second, 90, 40)):
        side = clip.box[2]
        # 1.9 faces of 30 pixels, a pixel or two more where H.264 smears the edge.
        assert clip.box[3] == side and 57 <= side <= 61
        assert abs(clip.box[0] + side / 2 - (x + 15)) <= 2 and abs(clip.box[1] + side / 2 - (y + 12)) <= 2
        wanted = [faces.crop(frame, Box(*clip.box)) for frame in frames[clip.first : clip.first + len(clip.frames)]]
        assert clip.frames == [transforms.encode_png(transforms.resize(image, 32, 32)) for image in wanted]
    assert cut(path, "video") == [first, second]


def test_the_square_has_the_scale_asked_for(tmp_path):
    for n, scale in enumerate((1.5, 2.5)):
        (clip,) = cut_frames(tmp_path / str(n), [shot(60)] * 6, crop_scale=scale)
        assert clip.box[2] == 30 * scale


def test_square_frames_are_cut_by_the_face_if_asked_for_and_others_to_the_middle(tmp_path):
    (clip,) = cut_frames(tmp_path / "square", [shot(40, 50, width=96)] * 6, crop="face")
    assert clip.box == (26, 34, 57, 57)
    frames = [textured(1, 41, 60)[0] // 2 + np.uint8(n) for n in range(3)]  # A jump would be a cut.
    (clip,) = cut_frames(tmp_path / "wide", frames, crop="none")
    assert clip.first == 0 and clip.box == (9, 0, 41, 41)
    for image, frame in zip(decoded(clip), frames, strict=True):
        np.testing.assert_array_equal(image, transforms.to_square(frame, 32))


@pytest.mark.parametrize("kind", ["video", "frames"])
@pytest.mark.parametrize(
    ("crop", "width", "box"),
    [("none", 160, (32, 0, 96, 96)), ("none", 96, (0, 0, 96, 96)), ("20,10,60,50", 160, (25, 10, 50, 50))],
)
def test_a_raw_film_is_cut_at_its_scenes_without_a_face_too(tmp_path, monkeypatch, kind, crop, width, box):
    monkeypatch.setattr(detectors, "open_detector", refuse)
    film = [shot(wall=60 + 90 * (n >= 20), width=width) for n in range(30)]
    path = write(tmp_path / ("a.mp4" if kind == "video" else "a"), film)
    parts = cut(path, kind, crop=crop, max_frames=12)
    assert ranges(parts) == [(0, 9, box), (10, 19, box), (20, 29, box)]
    frames = list(video.read_frames(path))
    for part in parts:
        for image, frame in zip(decoded(part), frames[part.first : part.first + len(part.frames)], strict=True):
            np.testing.assert_array_equal(image, transforms.resize(faces.crop(frame, Box(*box)), 32, 32))
    assert ranges(cut(path, kind, crop=crop, min_frames=11))[1] == (20, 29, "10 frames, --min_frames is 11")


def test_square_frames_without_a_cut_stay_whole_and_clips_cut_before_too(tmp_path):
    (clip,) = cut_frames(tmp_path / "square", [shot(width=96)] * 6, crop="none")
    assert clip.box is None and len(clip.frames) == 6
    film = [shot(wall=60 + 90 * (n >= 20)) for n in range(30)]
    for crop, box in (("none", (32, 0, 96, 96)), ("20,10,60,50", (25, 10, 50, 50))):
        path = write(tmp_path / "id1#7w0I#000001#000030.mp4", film)
        assert ranges(cut(path, "video", crop=crop, max_frames=12)) == [(0, 29, box)]


def test_a_scene_is_trimmed_to_where_the_face_is_seen(tmp_path):
    film = [AWAY] * 12 + [shot(60)] * 20 + [AWAY] * 3
    assert ranges(cut_frames(tmp_path / "a", film)) == [
        (0, 11, "the face is seen from frame 12 on"),
        (12, 31, (46, 14, 57, 57)),
        (32, 34, "the face is seen up to frame 31"),
    ]
    # Of 120 frames each fifth is looked at: in doubt frames are left out. The face need not be found in between.
    film = [AWAY] * 12 + [shot(60)] * 30 + [AWAY] * 10 + [shot(60)] * 57 + [AWAY] * 11
    assert ranges(cut_frames(tmp_path / "b", film)) == [
        (0, 14, "the face is seen from frame 15 on"),
        (15, 105, (46, 14, 57, 57)),
        (106, 119, "the face is seen up to frame 105"),
    ]


def test_a_clip_is_trimmed_to_where_its_square_holds_the_face(tmp_path):
    # The face walks a way that the picture is not high enough to hold.
    film = [shot(n, 5, height=40) for n in range(0, 120, 3)] + [shot(120, 5, height=40)] * 60
    before, clip = cut_frames(tmp_path, film, image_size=16)
    left, _, side, _ = clip.box
    assert side == 40 and left + side >= 150
    assert before == Dropped(0, clip.first - 1, f"the face is in the crop from frame {clip.first} on")
    # Three quarters of it are in the first frame, but not a frame earlier.
    assert 3 * clip.first + 30 / 4 >= left > 3 * (clip.first - 1) + 30 / 4


def test_the_face_seen_most_often_is_followed_and_others_do_not_matter(tmp_path):
    film = [shot(20) for _ in range(12)]
    for n, frame in enumerate(film):
        frame[20:60, 110:150] = (220 if n > 6 else 170), 20, 20  # Larger, but turned away for most of the time.
    (clip,) = cut_frames(tmp_path, film)
    assert clip.box[0] < 20 and clip.box[0] + clip.box[2] < 110


def test_long_scenes_are_divided_evenly_and_each_part_has_its_own_square(tmp_path):
    film = [shot(20 + n) for n in range(64)]
    parts = cut_frames(tmp_path, film, max_frames=30, min_frames=15)
    assert [(part.first, len(part.frames)) for part in parts] == [(0, 21), (21, 21), (42, 22)]
    middles = [part.box[0] + part.box[2] / 2 for part in parts]
    np.testing.assert_allclose(middles, [45, 66, 88], atol=2)


def test_every_frame_of_a_raw_item_is_in_one_part_in_order(tmp_path):
    random = np.random.default_rng(3)
    for case in range(6):
        film = []
        for scene in range(5):
            there, length = random.integers(0, 25, 2)
            x, wall = int(random.integers(120)), 40 * (1 + scene % 2)
            film += [shot(x, wall=wall, red=170)] * there + [shot(x, wall=wall)] * length
        parts = ranges(cut_frames(tmp_path / str(case), film, max_frames=9))
        assert parts[0][0] == 0 and parts[-1][1] == len(film) - 1
        assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(parts)), parts
        assert all(a <= b for a, b, _ in parts) and len(parts) > 3


@pytest.mark.parametrize(
    ("image", "changes", "box"),
    [
        (textured(1, 40, 40)[0], {}, None),
        (shot(60), {}, (46, 14, 57, 57)),
        (shot(60), {"crop": "none"}, (32, 0, 96, 96)),
        (shot(40, 50, width=96), {"crop": "face"}, (26, 34, 57, 57)),
    ],
)
def test_an_image_is_a_clip_of_one_frame_however_many_are_asked_for(tmp_path, image, changes, box):
    path = tmp_path / "a.png"
    path.write_bytes(transforms.encode_png(image))
    (clip,) = cut(path, "image", min_frames=9, **changes)
    height, width = image.shape[:2]
    square = faces.crop(image, Box(*(box or (0, 0, width, height))))
    assert clip == CutClip(0, [transforms.encode_png(transforms.resize(square, 32, 32))], box)


def test_faces_are_looked_for_in_every_fifth_frame_of_a_long_item_and_in_all_of_a_short_one(tmp_path, looks):
    cut_frames(tmp_path / "long", [shot(60)] * 132)
    assert len(looks) == 27
    cut_frames(tmp_path / "short", [shot(60)] * 30)
    assert len(looks) == 27 + 30


def test_a_raw_item_is_read_twice_and_its_length_needs_no_memory(tmp_path, monkeypatch):
    peaks = []
    for length in (100, 200, 800):  # The first one also pays for what is loaded once.
        film = Film(length)
        monkeypatch.setattr(cutting, "_open", lambda path, kind, film=film: film)
        tracemalloc.start()
        assert sum(1 for _ in cutting.cut(tmp_path, "frames", SMALL)) == length // 50
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert film.readings == 3  # Once for the size of the first frame.
    assert peaks[2] - peaks[1] < 600 * 150  # Measured: 20 to 40 bytes a frame; a frame has 46 kB.


def test_puppets_that_follow_each_other_are_found_by_the_bundled_detector(tmp_path, monkeypatch):
    monkeypatch.undo()
    film, places = [], [(300, 56), (40, 90)]
    for index, (x, y) in enumerate(places):
        identity = puppets.sample_identity("real", "train", 0, index)
        for motion in puppets.sample_motion("real", "train", 0, index, 14):
            film.append(np.full((240, 480, 3), 70 + 60 * index, np.uint8))
            film[-1][y : y + 128, x : x + 128] = puppets.render(identity, motion, 128)
    parts = cut(write(tmp_path / "film.mp4", film), "video", image_size=64)
    assert [(part.first, len(part.frames)) for part in parts] == [(0, 14), (14, 14)]
    for part, (x, y) in zip(parts, places, strict=True):
        left, top, side, _ = part.box
        # Measured: 228 and 170 pixels (1.9 faces), up to 9 pixels off the puppet's middle.
        assert 150 < side < 240
        np.testing.assert_allclose([left + side / 2, top + side / 2], [x + 64, y + 64], atol=14)


def test_each_part_of_a_scene_is_looked_at_however_short(tmp_path):
    parts = cut_frames(tmp_path, [shot(60)] * 130, max_frames=3)
    assert len(parts) == 44 and all(isinstance(part, CutClip) for part in parts)
    assert sorted({len(part.frames) for part in parts}) == [2, 3] and sum(len(part.frames) for part in parts) == 130
