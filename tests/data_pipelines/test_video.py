import contextlib
import os
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest

from data_pipelines import colour, transforms, video, video_writer
from data_pipelines.sound import has_sound
from tests.data_pipelines.video_files import film, flat, numbered, trim, write


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


@pytest.mark.parametrize(
    ("ratio", "rotation", "shown"),
    [
        ((4, 3), 0, (48, 85)),  # HDV, 85.3
        ((8, 9), 0, (48, 57)),  # DVD in NTSC, 56.9
        ((4, 3), 90, (85, 48)),
        ((1, 1), 0, (48, 64)),
        ((0, 1), 0, (48, 64)),
        ((102, 101), 0, (48, 64)),  # a crop that was off by a pixel, brought to its size by FFmpeg
        ((5, 1), 0, (48, 64)),
    ],
)
def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are_meant(tmp_path, ratio, rotation, shown):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = 255  # left half white
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(*ratio)
        stream.set_display_rotation(rotation)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    info = video.probe(tmp_path / "wide.mp4")
    assert (info.height, info.width) == shown
    frame = next(video.read_frames(tmp_path / "wide.mp4"))
    assert frame.shape == (*shown, 3)
    across = frame.mean(axis=2).max(axis=0 if not rotation else 1)
    white = np.flatnonzero(across > 128)
    assert abs(len(white) - max(shown) / 2) <= 1  # The edge stays in the middle.


def test_hdr_video_is_named_once(tmp_path, caplog):
    for name, curve in (("pq.mp4", 16), ("hlg.mp4", 18), ("sdr.mp4", 1)):
        path = write_raw(tmp_path / name, (82, 90, 240), dict(colorspace=9, color_range=1, color_trc=curve))
        for _ in range(2):
            video.probe(path)
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in told] == [str(tmp_path / "pq.mp4"), str(tmp_path / "hlg.mp4")]
    assert all("not tone-mapped" in message for message in told)


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


STEPS = [3000, 1500, 4500, 3003, 6000, 1501]  # of 1/90000 s


def uneven(count):
    return [sum(STEPS[n % len(STEPS)] for n in range(frame)) for frame in range(count)]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("clip.mp4", "libx264"), ("clip.mkv", "libx264"), ("clip.webm", "libvpx-vp9"), ("clip.ts", "libx264")],
)
@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 25])
def test_rate_and_count_are_exact_whatever_the_clock(tmp_path, name, codec, rate):
    path = film(tmp_path / name, 25, rate, codec)  # milliseconds in mkv and webm, a first stamp above 0 in ts
    assert video.probe(path) == video.VideoInfo("video", Fraction(rate), 25, 48, 64)
    assert len(list(video.read_frames(path))) == 25


@pytest.mark.parametrize(
    ("name", "codec", "tick"),
    [
        ("clip.mp4", "libx264", Fraction(1, 90000)),
        ("clip.mkv", "libx264", Fraction(1, 1000)),
        ("clip.webm", "libvpx-vp9", Fraction(1, 1000)),
    ],
)
@pytest.mark.parametrize("offset", [0, 45])
def test_a_varying_rate_keeps_the_times_of_all_frames(tmp_path, name, codec, tick, offset):
    shown = [round(stamp / 90000 / tick) for stamp in uneven(20)]
    path = film(tmp_path / name, 20, 30, codec, [stamp + offset for stamp in shown], tick)
    info = video.probe(path)
    assert info.times == tuple(stamp * tick for stamp in shown) and info.num_frames == 20
    assert abs(info.frame_rate - 19 / info.times[-1]) < 1e-3


def test_frames_that_an_edit_list_leaves_out_do_not_count(tmp_path):
    path = film(tmp_path / "cut.mp4", 20, stamps=list(range(-6, 14)))
    info = video.probe(path)
    assert (info.num_frames, info.times, info.frame_rate) == (14, None, 25)
    assert levels(video.read_frames(path)) == list(range(6, 20))
    path = trim(film(tmp_path / "trimmed.mp4", 20), 400)
    assert video.probe(path).num_frames == 10 and levels(video.read_frames(path)) == list(range(10))


def test_frames_before_the_first_key_frame_do_not_count(tmp_path):
    whole = film(tmp_path / "whole.mkv", 24, stamps=uneven(24), tick=Fraction(1, 90000), key_frames=12)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][5:]:
            packet.stream = stream
            target.mux(packet)
    info = video.probe(tmp_path / "cut.mkv")
    assert levels(video.read_frames(tmp_path / "cut.mkv")) == list(range(12, 24))
    times = video.probe(whole).times
    assert info.times == tuple(time - times[12] for time in times[12:]) and info.num_frames == 12


def test_a_file_without_time_stamps_has_the_rate_it_tells(tmp_path):
    path = film(tmp_path / "raw.h264", 10)
    assert video.probe(path) == video.VideoInfo("video", Fraction(25), None, 48, 64)
    assert video.Section(path).num_frames is None
    assert levels(video.Section(path, 0.2, 0.32)) == [5, 6, 7]
    with pytest.raises(video.VideoError, match="no frame from 0.4 s to the end"):
        video.Section(path, 0.4)


def test_a_gif_with_uneven_delays_keeps_its_times(tmp_path):
    times = [Fraction(n, 100) for n in (0, 10, 14, 50, 60)]
    with video_writer.open_writer(tmp_path / "clip.gif", 10, times=times) as writer:
        for frame in numbered(5):
            writer.write(frame)
    info = video.probe(tmp_path / "clip.gif")
    assert info.times == tuple(times) and info.num_frames == 5


def levels(frames):
    """Which frames of `numbered` these are."""
    return [round(float(frame.mean()) / 10) for frame in frames]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory):
    """A driver of each kind with ten frames at 25 a second, and one whose rate varies."""
    folder = tmp_path_factory.mktemp("drivers")
    vary = film(folder / "vary.mp4", 10, 30, stamps=uneven(10), tick=Fraction(1, 90000))
    made = {name: write(folder / name, numbered(10)) for name in ("clip.mp4", "clip.gif", "frames")}
    return {**made, "vary.mp4": vary}


@pytest.mark.parametrize("kind", ["clip.mp4", "clip.gif", "frames"])
@pytest.mark.parametrize(
    ("limits", "frames", "interval"),
    [
        ({}, range(10), (0, None)),
        ({"start": 0.12}, range(3, 10), (Fraction(3, 25), None)),  # 0.12 as a float is above 3/25
        ({"start": 0.121}, range(4, 10), (Fraction(4, 25), None)),
        ({"end": 0.2}, range(5), (0, Fraction(5, 25))),
        ({"end": 0.201}, range(6), (0, Fraction(6, 25))),
        ({"start": Fraction(1, 25), "end": 7}, range(1, 10), (Fraction(1, 25), 7)),
        ({"max_frames": 3}, range(3), (0, Fraction(3, 25))),
        ({"max_frames": 10}, range(10), (0, None)),
        ({"start": 0.1, "end": 0.3, "max_frames": 2}, range(3, 5), (Fraction(3, 25), Fraction(5, 25))),
        ({"start": 0.1, "end": 0.2, "max_frames": 99}, range(3, 5), (Fraction(3, 25), Fraction(5, 25))),
    ],
)
def test_a_section_is_what_is_shown_in_it(drivers, kind, limits, frames, interval):
    section = video.Section(drivers[kind], **limits)
    assert levels(section) == list(frames)
    assert levels(section) == list(frames)  # from the first again
    assert (section.num_frames, section.frame_rate, section.times) == (len(frames), 25, None)
    assert section.interval == interval and section.path == drivers[kind]


@pytest.mark.parametrize("frame", [1, 3, 7])
def test_a_start_in_decimals_means_the_frame_beside_it(tmp_path, frame):
    path = film(tmp_path / "clip.mp4", 9, Fraction(30000, 1001))
    exact = frame * 1001 / 30000  # 3 gives 0.10010000000000001
    for start in (exact, round(exact, 7), round(exact + 4e-7, 6)):
        assert video.Section(path, start, max_frames=1).interval[0] == frame * Fraction(1001, 30000)


def test_a_section_of_a_varying_rate(drivers):
    times = [Fraction(stamp, 90000) for stamp in uneven(10)]
    section = video.Section(drivers["vary.mp4"], times[2], times[6])
    assert levels(section) == [2, 3, 4, 5]
    assert section.times == tuple(time - times[2] for time in times[2:6]) and section.num_frames == 4
    assert section.interval == (times[2], times[6])
    late = video.Section(drivers["vary.mp4"], times[7] + Fraction(1, 10**5), max_frames=5)
    assert levels(late) == [8, 9] and late.interval == (times[8], None)
    with pytest.raises(video.VideoError, match=r"no frame from 9 s to the end in the video, which lasts 0\.3\d\d s"):
        video.Section(drivers["vary.mp4"], 9)


def test_an_image_is_a_section_of_one_frame(drivers):
    section = video.Section(drivers["frames"] / "000003.png", end=1)
    assert levels(section) == [3] and section.num_frames == 1
    with pytest.raises(video.VideoError, match="lasts 0.040 s"):
        video.Section(drivers["frames"] / "000003.png", start=0.04)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"start": -1}, "start -1 s: use a number of seconds from 0 on"),
        ({"start": float("nan")}, "start nan s"),
        ({"end": float("inf")}, "end inf s"),
        ({"start": 2, "end": 2.0}, "end 2 s is not after start 2 s: use start < end"),
        ({"end": 0}, "end 0 s is not after start 0 s"),
        ({"max_frames": 0}, "max_frames 0: use 1 or more"),
        ({"start": 0.4}, r"no frame from 0\.4 s to the end in the video, which lasts 0\.400 s"),
        ({"start": 0.37, "end": 0.39}, r"no frame from 0\.37 s to 0\.39 s in the video, which lasts 0\.400 s"),
    ],
)
def test_a_section_without_frames_is_told_at_once(drivers, limits, message):
    with pytest.raises(video.VideoError, match=message):
        video.Section(drivers["clip.mp4"], **limits)


def test_a_section_converts_no_frame_before_it_is_wanted(drivers, monkeypatch):
    section = video.Section(drivers["clip.mp4"], start=0.2)
    converted = []
    to_rgb = colour.to_rgb
    monkeypatch.setattr(colour, "to_rgb", lambda frame: converted.append(frame.pts) or to_rgb(frame))
    frames = iter(section)
    assert not converted
    next(frames), next(frames)
    assert len(converted) == 2  # neither the five before nor those to come


def test_sound_is_noticed(tmp_path, drivers):
    assert has_sound(film(tmp_path / "clip.mp4", 5, sound="aac"))
    for silent in (drivers["clip.mp4"], drivers["clip.gif"], drivers["frames"], tmp_path / "nothing.mp4"):
        assert not has_sound(silent)


def test_strict_reading_tells_of_damage_that_is_filled_in_otherwise(tmp_path):
    random = np.random.default_rng(0)
    path = write(tmp_path / "a.mp4", random.integers(0, 256, (30, 64, 64, 3), dtype=np.uint8))
    assert len(list(video.Section(path, strict=True))) == 30
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert len(list(video.Section(path))) == 30
    with pytest.raises(video.VideoError, match=r"a.mp4: frame \d+ is damaged"):
        list(video.Section(path, strict=True))


def test_h264_in_an_avi_comes_in_the_order_of_showing(tmp_path):
    path = film(tmp_path / "clip.avi", 24, 24, sound="mp3", seconds=1)  # FFmpeg's times there are of another order
    assert levels(video.read_frames(path)) == list(range(24))
    assert levels(video.Section(path, 0.25, max_frames=3)) == [6, 7, 8]
    assert video.probe(path).frame_rate == 24 and video.first_time(path) == 0


def test_a_gif_of_one_picture_is_a_still(tmp_path):
    PIL.Image.fromarray(numbered(2)[1]).save(tmp_path / "still.gif")  # without a delay
    info = video.probe(tmp_path / "still.gif")
    assert (info.frame_rate, info.num_frames) == (video.STILL_FRAME_RATE, 1)


def test_an_animated_picture_is_refused_where_one_frame_would_be_taken_of_it(tmp_path):
    pictures = [PIL.Image.fromarray(frame) for frame in numbered(3)]
    pictures[0].save(tmp_path / "moving.png", save_all=True, append_images=pictures[1:])
    with pytest.raises(video.VideoError, match="moving.png: several pictures in one file, of which one is read"):
        video.probe(tmp_path / "moving.png")
    assert levels([video.read_image(tmp_path / "moving.png")]) == [0]  # as a source


@pytest.mark.parametrize("name", ["cut.png", "cut.webp"])
def test_what_is_transparent_lies_on_white(tmp_path, name):
    picture = np.zeros((8, 8, 4), np.uint8)
    picture[..., 0], picture[:4, :, 3], picture[4:, :4, 3] = 200, 255, 128  # red: opaque, half and not at all
    PIL.Image.fromarray(picture).save(tmp_path / name, lossless=True, exact=True)
    shown = video.read_image(tmp_path / name)
    np.testing.assert_array_equal(shown[:4], np.broadcast_to([200, 0, 0], (4, 8, 3)))
    np.testing.assert_array_equal(shown[4:, :4], np.broadcast_to([227, 127, 127], (4, 4, 3)))
    assert (shown[4:, 4:] == 255).all()


def test_names_with_a_colon_are_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("12:30 clip.mp4", numbered(3))
    assert levels(video.read_frames("12:30 clip.mp4")) == [0, 1, 2]
    film(tmp_path / "12:30 film.mp4", 3, sound="aac", seconds=1)
    assert has_sound("12:30 film.mp4") and not has_sound("12:30 clip.mp4")


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "P"), ("a.webp", "RGB"), ("a.jpg", "RGB")])
def test_what_has_no_transparency_is_decoded_once(tmp_path, monkeypatch, name, mode):
    PIL.Image.fromarray(numbered(3)[2]).convert(mode).save(tmp_path / name)
    calls, decode = [], transforms.cv2.imdecode
    monkeypatch.setattr(transforms.cv2, "imdecode", lambda *arguments: calls.append(1) or decode(*arguments))
    assert levels([video.read_image(tmp_path / name)]) == [2] and len(calls) == 1


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    picture = PIL.Image.fromarray(numbered(2)[1]).quantize(2)
    picture.save(tmp_path / "palette.png", transparency=picture.getpixel((0, 0)))
    assert (video.read_image(tmp_path / "palette.png") == 255).all()


def test_an_animated_picture_is_no_frame(tmp_path):
    pictures = [PIL.Image.fromarray(frame) for frame in numbered(3)]
    (tmp_path / "frames").mkdir()
    pictures[0].save(tmp_path / "frames" / "0.webp", save_all=True, append_images=pictures[1:])
    pictures[0].save(tmp_path / "still.webp")
    assert video.read_still(tmp_path / "still.webp").shape == numbered(3)[0].shape
    with pytest.raises(video.VideoError, match="0.webp: several pictures in one file"):
        list(video.read_frames(tmp_path / "frames"))


def test_names_with_the_same_numbers_have_one_order(tmp_path, monkeypatch):
    names = ["1.png", "01.png", "2.png", "002.png"]
    for name in names:
        (tmp_path / name).touch()
    orders = []
    for reverse in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(video.os, "scandir", lambda path, r=reverse: _listing(path, r))
            orders.append([file.name for file in video.frame_files(tmp_path)])
    assert orders == [["01.png", "1.png", "002.png", "2.png"]] * 2


@contextlib.contextmanager
def _listing(path, reverse, scandir=os.scandir):
    with scandir(path) as entries:
        yield sorted(entries, key=lambda entry: entry.name, reverse=reverse)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("across", "down"), [(True, False), (False, True), (False, False)])
def test_mirrored_and_turned_videos_come_as_they_are_meant(tmp_path, degrees, across, down):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :32] = 255
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_rotation(degrees, across, down)  # counter-clockwise, then mirrored
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    meant = np.rot90(image, degrees // 90)[:: -1 if down else 1, :: -1 if across else 1]
    frame = next(video.read_frames(tmp_path / "film.mp4"))
    assert frame.shape == meant.shape and np.abs(frame.astype(int) - meant).mean() < 10


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_is_transparent_and_turned_by_its_exif_is_never_erased_where_it_is_opaque(tmp_path, orientation):
    picture = np.full((8, 8, 4), (200, 0, 0, 255), np.uint8)
    picture[:2, :, 3] = 0
    picture[:2, :, :3] = 9  # hidden
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(picture).save(tmp_path / "cut.png", exif=exif)
    shown = video.read_image(tmp_path / "cut.png")
    assert (shown == (200, 0, 0)).all(-1).sum() == 48
