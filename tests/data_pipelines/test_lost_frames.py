"""Videos with packets that cannot be decoded: what is left is shown when it should be."""

import av
import numpy as np
import pytest
from absl import logging

from data_pipelines import video
from tests.data_pipelines.video_files import copy, film, packets

COUNT = 20


def levels(frames):
    return [round(float(frame.mean()) / 10) for frame in frames]


def damaged(path, numbers, **settings):
    """A `film` of COUNT frames with a key frame every 12, some of whose packets, in the order of the file, are 0xff."""
    film(path, COUNT, key_frames=12, **settings)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for position, size in (places[number] for number in numbers):
        data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    return path


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "error", lambda text, *values: lines.append(text % values))
    return lines


@pytest.mark.parametrize("late", [14, 12, COUNT - 1], ids=["one", "key", "last"])
def test_frames_after_lost_ones_come_when_they_should_and_the_sound_with_them(tmp_path, told, late):
    path = damaged(tmp_path / "driver.mp4", [late], sound="aac")
    section = video.Section(path)
    found = levels(section)
    assert len(found) == section.num_frames == COUNT
    assert found[:12] == list(range(12)) and 0 < sum(np.diff(found) == 0) <= 8
    assert levels(section) == found
    (line,) = told  # once, however often it is read
    assert "driver.mp4" in line and "cannot be decoded" in line
    copy(path, tmp_path / "out.mp4")
    assert [len(packets(tmp_path / "out.mp4", kind)) for kind in ("video", "audio")] == [
        COUNT,
        len(packets(path, "audio")),
    ]
    with pytest.raises(video.VideoError, match="broken after|is damaged"):
        list(video.Section(path, strict=True))


def test_a_file_begins_where_it_can_be_decoded(tmp_path, told):
    path = damaged(tmp_path / "driver.mp4", [0])
    assert levels(video.read_frames(path)) == list(range(12, COUNT))
    assert told == []


def test_without_time_stamps_a_packet_counts_as_a_frame(tmp_path, told):
    path = damaged(tmp_path / "driver.avi", [7], codec="mpeg4")
    found = levels(video.Section(path))
    assert len(found) == COUNT and found[:6] == list(range(6)) and len(told) == 1


def test_whole_videos_are_left_as_they_are(tmp_path, told):
    path = film(tmp_path / "driver.mp4", COUNT, sound="aac")
    assert levels(video.Section(path)) == list(range(COUNT)) and told == []
