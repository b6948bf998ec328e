import resource
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import PIL.Image
import pytest

from data_pipelines import comments, video, video_writer
from tests.data_pipelines.video_files import COLOURS, copy, film, flat, numbered, packets, write


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


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip"])
def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path, name):
    path = tmp_path / name
    if path.suffix:
        path.write_text("older")
    for frames in ([], numbered(3)):
        with pytest.raises((RuntimeError, video.VideoError)), video_writer.open_writer(path, 25) as writer:
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


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip"])
def test_a_full_disk_is_told_by_the_name_that_was_asked_for(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(video.VideoError) as caught:
            write(path, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"{path}: could not be written, nothing of it is kept (File too large)"
    assert not list(tmp_path.iterdir())


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
        ("clip.mp4", 25, numbered(1, 0, 64), "frame 0 is 64×0: no picture"),
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


def write_at(path, times, rate=10, count=None):
    with video_writer.open_writer(path, rate, times=times) as writer:
        for frame in numbered(len(times) if count is None else count):
            writer.write(frame)
    return path


UNEVEN = [Fraction(n, 90000) for n in (0, 3000, 4500, 9001, 9002, 18000, 19501)]


@pytest.mark.parametrize(
    "times",
    [
        UNEVEN,
        [Fraction(n, 1000) for n in (0, 33, 67, 101, 400, 401)],
        [Fraction(n * 1001, 30000) for n in (0, 1, 2, 4, 5, 9)],
        [Fraction(0), Fraction(1, 90000), Fraction(1, 48000), Fraction(1)],  # both clocks: 1/720000
        [Fraction(0), Fraction(7200), Fraction(7201)],
    ],
)
def test_mp4_keeps_times_exactly(tmp_path, times):
    path = write_at(tmp_path / "clip.mp4", times)
    assert [time for time, _ in packets(path, "video")] == times
    assert video.probe(path).times == tuple(times)
    data = path.read_bytes()  # FFmpeg does not tell what the file says of its duration: in the header of the movie
    clock, duration = struct.unpack_from(">II", data, data.index(b"mvhd") + 16)
    assert abs(Fraction(duration, clock) - times[-1] - Fraction(1, 10)) <= Fraction(1, clock)  # by the rate


def test_times_without_a_common_clock_are_kept_to_a_microsecond(tmp_path):
    times = [Fraction(n, 999983) for n in (0, 40000, 80000, 200001)]
    for (time, _), wanted in zip(packets(write_at(tmp_path / "clip.mp4", times), "video"), times, strict=True):
        assert abs(time - wanted) <= Fraction(1, 2_000_000)


@pytest.mark.parametrize("driver", ["clip.mp4", "clip.mkv"])
def test_a_varying_rate_goes_through_unchanged(tmp_path, driver):
    tick = Fraction(1, 90000) if driver == "clip.mp4" else Fraction(1, 1000)
    shown = [round(time / tick) for time in UNEVEN if time != UNEVEN[4]]
    film(tmp_path / driver, len(shown), 30, stamps=shown, tick=tick)
    copy(tmp_path / driver, tmp_path / "out.mp4")
    assert video.probe(tmp_path / "out.mp4").times == video.probe(tmp_path / driver).times


def test_gif_times_do_not_drift(tmp_path):
    times = [n * Fraction(1001, 30000) + Fraction(n // 100, 2) for n in range(250)]
    path = tmp_path / "clip.gif"
    with video_writer.open_writer(path, 5, times=times) as writer:
        for n in range(250):
            writer.write(flat((n, n, n), 8, 8))
    got = [time for time, _ in packets(path, "video")]
    assert len(got) == 250 and max(abs(a - b) for a, b in zip(got, times, strict=True)) <= Fraction(1, 200)
    with av.open(str(path)) as container:  # the last frame is shown for 1/5 s
        assert container.streams.video[0].duration * Fraction(1, 100) == got[-1] + Fraction(1, 5)


def test_gif_frames_too_fast_for_players_are_late_until_slower_ones_follow(tmp_path):
    times = [Fraction(n, 100) for n in (0, 1, 2, 3, 20, 21, 40)]
    got = [time * 100 for time, _ in packets(write_at(tmp_path / "clip.gif", times), "video")]
    assert got == [0, 2, 4, 6, 20, 22, 40]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip"])
def test_more_frames_than_times_is_an_error(tmp_path, name):
    with pytest.raises(video.VideoError, match="one frame more than the 3 times given"):
        write_at(tmp_path / name, [Fraction(n, 10) for n in range(3)], count=4)
    assert not list(tmp_path.iterdir())
    write_at(tmp_path / name, [Fraction(n, 10) for n in range(3)], count=2)  # fewer are as well


@pytest.mark.parametrize(("times", "message"), [((0, 2, 2), "frame 2 is shown at 2 s"), ((-1, 0), "count from 0")])
def test_times_that_do_not_increase_are_told_at_once(tmp_path, times, message):
    with pytest.raises(video.VideoError, match=message):
        write_at(tmp_path / "clip.mp4", [Fraction(time) for time in times], count=0)


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out"])
@pytest.mark.parametrize("text", ["synthetic; network é", "long " * 200])
def test_the_comment_is_in_the_file(tmp_path, name, text):
    path = tmp_path / name
    with video_writer.open_writer(path, 10, comment=text) as writer:
        for frame in numbered(3):
            writer.write(frame)
    assert comments.of_file(path) == text
    assert video.probe(path).num_frames == 3 and video.probe(path).height == 48
    np.testing.assert_allclose([frame.mean() for frame in video.read_frames(path)], [0, 10, 20], atol=1.5)
    if path.is_dir():
        for file in path.iterdir():
            assert comments.of_file(file) == text
            with PIL.Image.open(file) as picture:
                picture.verify()  # the sums of the chunks
                assert picture.info["Comment"] == text
    if name == "out.gif":
        with PIL.Image.open(path) as picture:
            assert picture.info["comment"].decode() == text and picture.info["loop"] == 0 and picture.n_frames == 3


def test_a_gif_without_a_common_palette_takes_a_comment(tmp_path):
    (tmp_path / "out.gif").write_bytes(b"GIF89a\x08\0\x08\0\0\0\0;")
    comments.add_to_gif(tmp_path / "out.gif", "made")
    assert (tmp_path / "out.gif").read_bytes() == b"GIF89a\x08\0\x08\0\0\0\0\x21\xfe\x04made\0;"


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out"])
def test_no_comment_is_none(tmp_path, name):
    assert comments.of_file(write(tmp_path / name, numbered(2))) == ""


def test_a_png_comment_has_latin_letters_only_and_a_missing_file_is_told(tmp_path):
    with video_writer.open_writer(tmp_path / "out", 10, comment="网 é") as writer:
        writer.write(flat((0, 0, 0)))
    assert comments.of_file(tmp_path / "out") == "? é"
    for nothing in ("nothing.mp4", "nothing.png"):
        with pytest.raises(video.VideoError, match=nothing):
            comments.of_file(tmp_path / nothing)


def test_links_are_followed(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "to frames").symlink_to("frames")
    (tmp_path / "to nothing.mp4").symlink_to("clip.mp4")
    write(tmp_path / "to frames", numbered(2))
    write(tmp_path / "to nothing.mp4", numbered(2))
    assert len(list((tmp_path / "frames").iterdir())) == 2
    assert (tmp_path / "to nothing.mp4").is_symlink() and video.probe(tmp_path / "clip.mp4").num_frames == 2
    assert len(list(tmp_path.iterdir())) == 4
