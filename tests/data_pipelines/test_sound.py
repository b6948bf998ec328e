from fractions import Fraction

import av
import numpy as np
import pytest

from data_pipelines import sound, video, video_writer
from tests.data_pipelines.video_files import copy, film, numbered, packets, trim, write

DRIVERS = [
    ("driver.mp4", "libx264", "aac", 0),
    ("driver.mp4", "libx264", "libmp3lame", 0),
    ("driver.mkv", "libx264", "aac", 0),
    ("driver.mkv", "libx264", "flac", 0),
    ("driver.mkv", "libx264", "alac", 0),  # its packets have no duration
    ("driver.webm", "libvpx-vp9", "libopus", 0),
    ("driver.mov", "libx264", "pcm_s16le", 0),
    ("driver.mp4", "libx264", "aac", 0.5),  # the sound begins later than the pictures
    ("driver.mp4", "libx264", "aac", -0.5),
]


def offset(path, count=None):
    """From the first picture to each packet of sound, in seconds."""
    first = packets(path, "video")[0][0]
    return np.array([float(time - first) for time, _ in packets(path, "audio")][:count])


@pytest.mark.parametrize(("name", "codec", "sound_codec", "start"), DRIVERS)
@pytest.mark.parametrize("delay", [0, 10])
def test_sound_is_copied_bit_for_bit_and_in_step(tmp_path, name, codec, sound_codec, start, delay):
    stamps = list(range(delay, delay + 25))  # one second; the sound goes on for another
    driver = film(tmp_path / name, 25, codec=codec, stamps=stamps, sound=sound_codec, start=start)
    out = copy(driver, tmp_path / "out.mp4")
    assert len(packets(driver, "audio")) > 15
    assert [data for _, data in packets(out, "audio")] == [data for _, data in packets(driver, "audio")]
    # Both clocks round: a millisecond in mkv and webm, a sample elsewhere.
    np.testing.assert_allclose(offset(out), offset(driver), atol=1e-3 if name[-3:] in ("mkv", "ebm") else 3e-5)
    assert video.probe(out) == video.probe(driver)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == sound_codec.removeprefix("lib").replace(
            "mp3lame", "mp3float"
        )
        assert sum(frame.samples for frame in container.decode(audio=0)) > 20000


@pytest.mark.parametrize("delay", [0, 10])
@pytest.mark.parametrize("limits", [(0.4, 0.8), (0, 0.8), (0.4, None)])
def test_the_sound_of_a_section_is_cut_to_it(tmp_path, limits, delay):
    driver = film(tmp_path / "driver.mp4", 25, stamps=list(range(delay, delay + 25)), sound="aac")
    out = copy(driver, tmp_path / "out.mp4", *limits)
    start, end = limits
    all_times, all_data = offset(driver), [data for _, data in packets(driver, "audio")]
    duration = 1024 / 48000
    kept = (all_times < (end or 99)) & ((all_times + duration > start + 1e-6) | (start == 0))
    assert [data for _, data in packets(out, "audio")] == [d for d, k in zip(all_data, kept, strict=True) if k]
    np.testing.assert_allclose(offset(out), all_times[kept] - start, atol=3e-5)
    assert -duration <= offset(out)[0] <= 0 or delay
    assert video.probe(out).num_frames == round(((end or 1) - start) * 25)


def test_sound_that_an_edit_list_hides_stays_hidden(tmp_path):
    driver = trim(film(tmp_path / "driver.mp4", 25, sound="aac"), 400)
    out = packets(copy(driver, tmp_path / "out.mp4"), "audio")
    assert video.probe(tmp_path / "out.mp4").num_frames == 10
    # The packet across the end, too, and the run-in before 0.
    assert 0.4 - 1024 / 48000 <= out[-1][0] < 0.4 and out[0][0] < 0
    assert out == packets(driver, "audio")[: len(out)]


@pytest.mark.parametrize("name", ["out.gif", "out"])
def test_gifs_and_folders_have_no_sound(tmp_path, name):
    driver = film(tmp_path / "driver.mkv", 5, sound="aac")
    assert not sound.has_sound(copy(driver, tmp_path / name))


def test_a_driver_without_sound_gives_none(tmp_path):
    for driver in (write(tmp_path / "clip.mp4", numbered(3)), write(tmp_path / "frames", numbered(3))):
        assert not sound.has_sound(copy(driver, tmp_path / "out.mp4"))


def test_sound_that_no_mp4_holds_is_told_at_once(tmp_path):
    driver = film(tmp_path / "driver.avi", 5, codec="mpeg4", sound="adpcm_ms")
    message = "driver.avi: its sound is adpcm_ms, which an mp4 cannot hold: use --nosound"
    with pytest.raises(video.VideoError, match=message):
        with video_writer.open_writer(tmp_path / "out.mp4", 25, sound=sound.Sound(driver)):
            raise AssertionError("opened")
    assert [file.name for file in tmp_path.iterdir()] == ["driver.avi"]
    copy(driver, tmp_path / "out.gif")  # which needs none
    with pytest.raises(video.VideoError, match="nothing.mp4: no such file"):
        with video_writer.open_writer(tmp_path / "out.mp4", 25, sound=sound.Sound(tmp_path / "nothing.mp4")):
            raise AssertionError("opened")


def test_sound_is_read_as_the_pictures_go_on(tmp_path, monkeypatch):
    driver = film(tmp_path / "driver.mp4", 25, sound="aac", seconds=9)
    taken = []
    shifted = sound.SoundCopy._shifted

    def watched(self, origin):
        for packet in shifted(self, origin):
            taken.append(packet.pts * packet.time_base)
            yield packet

    monkeypatch.setattr(sound.SoundCopy, "_shifted", watched)
    with video_writer.open_writer(tmp_path / "out.mp4", 5, sound=sound.Sound(driver)) as writer:
        for number, frame in enumerate(numbered(20), 1):
            writer.write(frame)
            # The packet after the frame's end is at hand, and none beyond it.
            assert abs(taken[-1] - Fraction(number, 5)) <= Fraction(1024, 48000)
    assert taken[-1] > 8.9  # the sound goes to its end, the pictures to 4 s
