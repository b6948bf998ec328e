from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from data_pipelines import transforms, video

COLOURS = [
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 0),
    (255, 255, 255),
    (0, 0, 0),
    (128, 128, 128),
    (201, 120, 90),
    (20, 200, 180),
]


def flat(colour, height=48, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def numbered(count, height=48, width=64):
    """Grey frames, each of its own level."""
    return [flat((10 * n,) * 3, height, width) for n in range(count)]


def write(path, frames, rate=25):
    with video.open_writer(path, rate) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def write_raw(path, planes, tags, height=48, width=64):
    """An mp4 of one yuv420p frame whose planes hold the given values."""
    sizes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    image = np.concatenate([np.full(h * w, v, np.uint8) for v, (h, w) in zip(planes, sizes, strict=True)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        for name, value in dict(height=height, width=width, pix_fmt="yuv420p", options={"crf": "1"}, **tags).items():
            setattr(stream, name, value)
        frame = av.VideoFrame.from_ndarray(image.reshape(-1, width), format="yuv420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(12, 5), 10, 60])
def test_mp4_keeps_rate_count_order_and_size(tmp_path, rate):
    path = write(tmp_path / "clip.mp4", numbered(13), rate)
    assert video.probe(path) == video.VideoInfo("video", Fraction(rate), 13, 48, 64)
    levels = [frame.mean() for frame in video.read_frames(path)]
    np.testing.assert_allclose(levels, np.arange(13) * 10, atol=1.5)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (736, 720)])
def test_mp4_does_not_shift_colours(tmp_path, height, width):
    path = write(tmp_path / "clip.mp4", [flat(colour, height, width) for colour in COLOURS])
    frames = list(video.read_frames(path))
    assert len(frames) == len(COLOURS) and frames[0].shape == (height, width, 3) and frames[0].dtype == np.uint8
    for frame, colour in zip(frames, COLOURS, strict=True):
        # 8-bit limited range costs 1 level; BT.601 taken for BT.709 costs 15 and more, a wrong range 16.
        assert np.abs(frame.astype(int) - colour).max() <= 2, colour


def test_mp4_says_bt709_and_means_it(tmp_path):
    with av.open(str(write(tmp_path / "clip.mp4", [flat((255, 0, 0))]))) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    # Red by BT.709 in the limited range, from the standard's Kr = 0.2126, Kb = 0.0722.
    y, cb, cr = 16 + 219 * 0.2126, 128 - 112 * 0.2126 / (1 - 0.0722), 240
    planes = np.split(frame.to_ndarray(), [48, 60])  # Y of 48 rows, then Cb and Cr of 12 rows' worth each
    for plane, value in zip(planes, (y, cb, cr), strict=True):
        np.testing.assert_allclose(plane, value, atol=1)


@pytest.mark.parametrize(
    ("planes", "tags"),
    [
        ((82, 90, 240), {}),  # no tags: BT.601 below 720 lines
        ((82, 90, 240), dict(colorspace=6, color_range=1)),
        ((76, 85, 255), dict(colorspace=5, color_range=2)),  # full range, as cameras write it
        ((63, 102, 240), dict(colorspace=1, color_range=1)),
    ],
)
def test_red_is_red_whatever_the_file_calls_it(tmp_path, planes, tags):
    frame = next(video.read_frames(write_raw(tmp_path / "red.mp4", planes, tags)))
    assert np.abs(frame.astype(int) - (255, 0, 0)).max() <= 3


def test_high_definition_without_tags_is_bt709(tmp_path):
    frame = next(video.read_frames(write_raw(tmp_path / "red.mp4", (63, 102, 240), {}, height=720, width=64)))
    assert np.abs(frame.astype(int) - (255, 0, 0)).max() <= 3


def test_a_rotated_video_comes_upright(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 255  # left half white
    with av.open(str(tmp_path / "phone.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_rotation(90)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    info = video.probe(tmp_path / "phone.mp4")
    assert (info.height, info.width) == (64, 48)
    frame = next(video.read_frames(tmp_path / "phone.mp4"))
    # A quarter turn against the clock takes the left half to the bottom.
    assert frame[40:].min() > 200 and frame[:24].max() < 50


def test_gif_loops_and_keeps_colours_and_time(tmp_path):
    path = write(tmp_path / "clip.gif", [flat(colour) for colour in COLOURS], 10)
    assert video.probe(path) == video.VideoInfo("video", Fraction(10), len(COLOURS), 48, 64)
    for frame, colour in zip(video.read_frames(path), COLOURS, strict=True):
        assert np.abs(frame.astype(int) - colour).max() <= 1
    assert b"NETSCAPE2.0\x03\x01\x00\x00" in path.read_bytes()  # repeats without end


def test_gif_delays_average_to_the_rate(tmp_path):
    # Hundredths of a second: delays of 3 and 4 alternate. Read as its first delay the rate would be 33.
    info = video.probe(write(tmp_path / "clip.gif", numbered(20), 30))
    assert abs(info.frame_rate - 30) < 0.5


def test_gif_shows_gradients(tmp_path):
    ramp = np.linspace(0, 255, 64)[None, :, None].repeat(64, 0)
    image = np.concatenate([ramp, ramp.transpose(1, 0, 2), 255 - ramp], axis=2).astype(np.uint8)
    frame = next(video.read_frames(write(tmp_path / "clip.gif", [image])))
    # 256 colours cannot hold the picture; dithered they do from a distance: 0.55 levels off, not dithered 0.75.
    error = cv2.GaussianBlur(frame.astype(np.float32), (0, 0), 2) - cv2.GaussianBlur(
        image.astype(np.float32), (0, 0), 2
    )
    assert np.abs(error).mean() < 0.65


def test_every_gif_frame_has_a_palette_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (12, 20, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1) for _ in range(6)]
    got = list(video.read_frames(write(tmp_path / "clip.gif", frames)))
    # 240 colours a frame: 0.01 levels off; with one palette for the six frames 13.
    assert np.abs(np.array(got, int) - np.array(frames, int)).mean() < 0.1


def test_folder_of_frames_is_lossless_and_in_natural_order(tmp_path):
    frames = [np.random.default_rng(n).integers(0, 256, (5, 7, 3), dtype=np.uint8) for n in range(3)]
    written = write(tmp_path / "frames", frames)
    assert sorted(file.name for file in written.iterdir()) == ["000000.png", "000001.png", "000002.png"]
    np.testing.assert_array_equal(list(video.read_frames(written)), frames)

    named = tmp_path / "named"
    named.mkdir()
    for name, frame in zip(("f10.png", "f2.PNG", "f1.png"), frames, strict=True):
        (named / name).write_bytes(transforms.encode_png(frame))
    (named / "notes.txt").write_text("no frame")
    (named / ".f0.png").write_text("hidden")
    assert video.probe(named) == video.VideoInfo("frames", video.STILL_FRAME_RATE, 3, 5, 7)
    np.testing.assert_array_equal(list(video.read_frames(named)), frames[::-1])


def test_an_image_is_one_frame(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    (tmp_path / "one.png").write_bytes(transforms.encode_png(image))
    assert video.probe(tmp_path / "one.png") == video.VideoInfo("image", video.STILL_FRAME_RATE, 1, 5, 7)
    np.testing.assert_array_equal(list(video.read_frames(tmp_path / "one.png")), [image])


def test_reading_is_lazy_and_names_the_broken_frame(tmp_path):
    folder = write(tmp_path / "frames", numbered(4))
    (folder / "000002.png").write_bytes(b"broken")
    frames = video.read_frames(folder)
    next(frames), next(frames)
    with pytest.raises(video.VideoError, match="000002.png: not an image"):
        next(frames)


def test_frames_of_another_size_are_named(tmp_path):
    folder = write(tmp_path / "frames", numbered(2))
    (folder / "000002.png").write_bytes(transforms.encode_png(flat((0, 0, 0), 8, 9)))
    with pytest.raises(video.VideoError, match="frame 2 is 9×8, the first is 64×48"):
        list(video.read_frames(folder))


@pytest.mark.parametrize("name", ["nothing.mp4", "text.txt", "text.mp4", "empty.mp4", "text.png", "folder", "cut.mp4"])
def test_what_is_no_video_fails_at_once_in_one_line(tmp_path, name):
    (tmp_path / "text.txt").write_text("some text\n" * 100)
    (tmp_path / "text.mp4").write_text("some text\n" * 100)
    (tmp_path / "text.png").write_text("some text")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    whole = write(tmp_path / "whole.mp4", numbered(9)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for read in (video.probe, video.read_frames):
        with pytest.raises(video.VideoError, match=name) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(video.VideoError, match="no video stream"):
        video.probe(tmp_path / "sound.mp4")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip"])
def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path, name):
    path = tmp_path / name
    if path.suffix:
        path.write_text("older")
    for frames in ([], numbered(3)):
        with pytest.raises((RuntimeError, video.VideoError)), video.open_writer(path, 25) as writer:
            for frame in frames:
                writer.write(frame)
            assert path.exists() == bool(path.suffix)  # not there before it is complete
            if frames:
                raise RuntimeError("in the middle")
        assert [file.name for file in tmp_path.iterdir()] == ([name] if path.suffix else [])
    if path.suffix:
        assert path.read_text() == "older"
    write(path, numbered(2))
    assert len(list(video.read_frames(path))) == 2
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "rate", "frames", "message"),
    [
        ("clip.avi", 25, numbered(1), r"\.avi files: use \.mp4, \.gif"),
        ("clip.mp4", 0, numbered(1), "frame rate of 0"),
        ("clip.gif", 60, numbered(1), "frame rate of 60.* at most 50"),
        ("clip.mp4", 25, [], "no frame was written"),
        ("clip.mp4", 25, numbered(1, 48, 63), "even sides, not 63×48"),
        ("clip.mp4", 25, numbered(1) + numbered(1, 64, 64), r"frame 1 is \(64, 64, 3\), the first was \(48, 64, 3\)"),
        ("clip.mp4", 25, [np.zeros((48, 64, 3), np.float32)], "frame 0 is float32"),
        ("clip.mp4", 25, [np.zeros((48, 64), np.uint8)], r"frame 0 is uint8 \(48, 64\)"),
        ("used", 25, numbered(1), "in the way"),
        ("used/file/clip.mp4", 25, numbered(1), "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, name, rate, frames, message):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(video.VideoError, match=message):
        write(tmp_path / name, frames, rate)
    assert [file.name for file in tmp_path.iterdir()] == ["used"]
