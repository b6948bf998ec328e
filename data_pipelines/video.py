"""Reads frames: of videos, GIFs, folders of frames, single images. Frame rates and times stay exact fractions.

Frames are uint8 [H, W, 3] RGB, read one at a time, so that memory does not grow with the length.
"""

import array
import bisect
import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_pipelines import colour, cut_off, display, lost_frames, timing, transforms

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")
STILL_FRAME_RATE = Fraction(25)  # Of a folder of frames or an image, which tell none.


class VideoError(ValueError):
    """A path cannot be read or written as video; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a path holds.

    Attributes:
      kind: "video" (GIFs included), "frames" (a folder of images) or "image".
      frame_rate: frames per second, exact; the average if it varies; STILL_FRAME_RATE for frames and images.
      num_frames: exact; None where only decoding to the end would tell.
      height, width: in square pixels, upright (the pixels' shape and a rotation noted in the file are applied).
      times: when each frame is shown, in seconds from the first one, exact; None where that is frame / frame_rate
        within a tick of the file's clock (1/100 s in a GIF), or where the file does not tell.
      stamps: int64 [num_frames]: the same in ticks of the file's clock; None where the file does not tell.
    """

    kind: str
    frame_rate: Fraction
    num_frames: int | None
    height: int
    width: int
    times: tuple[Fraction, ...] | None = None
    stamps: np.ndarray | None = dataclasses.field(default=None, compare=False, repr=False)

    def time(self, frame: int) -> Fraction:
        """When a frame is shown, in seconds from the first one; the frame after the last is the end."""
        if self.times is None or frame == 0:
            return frame / self.frame_rate
        return self.times[frame] if frame < len(self.times) else self.times[-1] + 1 / self.frame_rate

    def frame_from(self, seconds: Fraction) -> int:
        """The number of the first frame shown from a microsecond before that time on; one past the end if none is."""
        seconds -= Fraction(1, 1_000_000)  # A time written in decimals may lie a little past the frame that it means.
        if self.times is None:
            return math.ceil(seconds * self.frame_rate)
        return bisect.bisect_left(self.times, seconds)


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder in natural order of their names (frame2 before frame10); others are left out."""
    with os.scandir(folder) as entries:
        files = [Path(entry.path) for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    images = (file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(images, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> list[tuple[int, str]]:
    """A sorting key by which the numbers in a name count as numbers; no two names have the same."""
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
    return [*parts, (-1, name)]


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file, of an animation the first picture, to uint8 [H, W, 3] RGB, upright, on white. VideoError."""
    return _read(Path(path), animated=True)


def read_still(path: str | os.PathLike) -> np.ndarray:
    """`read_image` where an animation would pass for one frame: raises VideoError for it, too."""
    return _read(Path(path), animated=False)


def _read(path: Path, animated: bool) -> np.ndarray:
    try:
        data = path.read_bytes()
        if not animated and transforms.is_animated(data):
            raise ValueError("several pictures in one file, of which one is read: make it a GIF or video")
        return transforms.decode(data, on_white=True)
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: {reason(error)}") from None


def probe(path: str | os.PathLike) -> VideoInfo:
    """Says what a path holds: decodes its first frame and reads a video once through. Raises VideoError if not one."""
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder")
    if path.is_dir():
        files = frame_files(path)
        if not files:
            raise VideoError(f"{path}: the folder holds no images ({', '.join(IMAGE_SUFFIXES)})")
        height, width, _ = read_still(files[0]).shape
        return VideoInfo("frames", STILL_FRAME_RATE, len(files), height, width)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        height, width, _ = read_still(path).shape
        return VideoInfo("image", STILL_FRAME_RATE, 1, height, width)
    with _open_stream(path) as (container, stream):
        told = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
        if container.format.name == "gif" and stream.frames and stream.duration:
            told = [stream.frames / (stream.duration * stream.time_base)]  # FFmpeg says the rate of the first delay.
        tick, ratio = stream.time_base, display.pixel_ratio(stream)
        first = next(filter(None, _decode(path, container, stream)), None)
    if first is None:
        raise VideoError(f"{path}: not one frame could be decoded")
    colour.warn_of_hdr(path, first)
    height, width, _ = display.to_array(first, ratio).shape
    stamps = _scan(path)
    if stamps is None or first.pts is None or first.pts not in stamps:
        if not told:
            raise VideoError(f"{path}: the file tells no frame rate")
        return VideoInfo("video", Fraction(told[0]), None, height, width)
    stamps = stamps[stamps >= first.pts]  # What comes before cannot be decoded: the file was cut there.
    if container.format.name == "gif" and len(stamps) == 1:
        told = [STILL_FRAME_RATE]
    rate = timing.steady_rate(stamps, tick, told)
    if rate is not None:
        return VideoInfo("video", rate, len(stamps), height, width, stamps=stamps)
    if len(stamps) == 1:
        raise VideoError(f"{path}: the file tells no frame rate")
    # The mean tells of no exact rate, and encoders count its numerator and denominator in 32 bits.
    rate = timing.mean_rate(stamps, tick).limit_denominator(100_000)
    times = tuple(int(stamp) * tick for stamp in stamps - stamps[0])
    return VideoInfo("video", rate, len(stamps), height, width, times, stamps)


def _scan(path: Path) -> np.ndarray | None:
    """When the frames of a video are shown, in ticks, int64 [N], increasing; None if its packets do not tell."""
    stamps = array.array("q")
    with _open_stream(path) as (container, stream):
        if _in_order_of_decoding(container, stream):
            return None
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:  # the end; a frame that an edit list leaves out
                    continue
                if packet.pts is None:
                    return None
                stamps.append(packet.pts)
        except av.FFmpegError:
            return None
    found = np.unique(np.array(stamps, np.int64))
    return found if 0 < len(found) == len(stamps) else None


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yields the frames of a video, GIF, folder of images or image, uint8 [H, W, 3] RGB, all of one size, lazily.

    Raises:
      VideoError: at once if the path holds no frame; at the frame concerned if it is broken or of another size. What
        cannot be decoded of a video is told in the log, and the frame before is shown instead.
    """
    return iter(Section(path))


class Section:
    """The wanted frames of a driver. Iterating yields them as `read_frames` does, each time from the first.

    Frames before `start` are decoded and dropped, which is faster than showing them but not free.

    Args:
      path: a video, GIF, folder of frames or image; the latter two run at STILL_FRAME_RATE.
      start, end: take the frames shown at [start, end) seconds from the first one, to a microsecond; None is the end
        of the video.
      max_frames: take no more than so many, an int; None takes all.
      strict: decode by one thread, since FFmpeg fills damaged places in differently with each number of them, and
        raise VideoError at a frame that it marks as damaged or cannot decode, in place of repeating the one before; and
        at once if the file ends before it says (`cut_off`).

    Attributes:
      path, info: of the whole file.
      frame_rate, times, num_frames: as in VideoInfo, of the section; times count from its first frame.
      interval: (first, last) seconds from the file's first frame that the section covers. `last` is None where it
        runs to the end of the video: `sound.Sound(path, *interval)` is the section's sound.

    Raises:
      VideoError: the path is no video, the arguments are no section, or no frame lies in it.
    """

    def __init__(
        self, path: str | os.PathLike, start: float = 0.0, end: float | None = None, max_frames=None, strict=False
    ):
        start, end = _seconds("start", start), None if end is None else _seconds("end", end)
        if end is not None and end <= start:
            raise VideoError(f"end {float(end):g} s is not after start {float(start):g} s: use start < end")
        if max_frames is not None and max_frames < 1:
            raise VideoError(f"max_frames {max_frames}: use 1 or more")
        self.path, self.info, self._strict = Path(path), probe(path), strict
        info = self.info
        self._first = first = info.frame_from(start)
        stops = [info.num_frames]
        stops += [None if end is None else info.frame_from(end), None if max_frames is None else first + max_frames]
        self._stop = stop = min((s for s in stops if s is not None), default=None)
        self.frame_rate = info.frame_rate
        self.num_frames = None if stop is None or info.num_frames is None else stop - first
        if (stop is not None and stop <= first) or (info.num_frames is None and next(iter(self), None) is None):
            length = "" if info.num_frames is None else f", which lasts {float(info.time(info.num_frames)):.3f} s"
            until = "the end" if end is None else f"{float(end):g} s"
            raise VideoError(f"{path}: no frame from {float(start):g} s to {until} in the video{length}")
        self.times = None
        if info.times is not None:
            self.times = tuple(time - info.times[first] for time in info.times[first:stop])
        self.interval = (info.time(first), end if stop == info.num_frames else info.time(stop))
        if strict and info.stamps is not None:
            self._check_end()

    def _check_end(self) -> None:
        with _open_stream(self.path) as (container, stream):
            if why := cut_off.missing_end(self.path, container, stream, self.info.frame_rate):
                raise VideoError(f"{self.path}: {why}")

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._same_size(self._frames())

    def _frames(self) -> Iterator[np.ndarray]:
        if self.info.kind == "frames":
            yield from map(read_still, frame_files(self.path)[self._first : self._stop])
        elif self.info.kind == "image":
            yield read_still(self.path)
        else:
            with _open_stream(self.path, one_thread=self._strict) as (container, stream):
                frames = _decode(self.path, container, stream, self._strict)
                if not self._strict:
                    frames = lost_frames.filled(self.path, frames, self.info.stamps)
                ratio = display.pixel_ratio(stream)
                for frame in itertools.islice(frames, self._first, self._stop):
                    yield display.to_array(frame, ratio)

    def _same_size(self, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        first = None
        for number, frame in enumerate(frames, self._first):
            first = frame.shape if first is None else first
            if frame.shape != first:
                sizes = f"{frame.shape[1]}×{frame.shape[0]}, the first is {first[1]}×{first[0]}"
                raise VideoError(f"{self.path}: frame {number} is {sizes}: bring all frames to one size")
            yield frame


def _seconds(name: str, value: float) -> Fraction:
    if not (math.isfinite(value) and value >= 0):
        raise VideoError(f"{name} {value} s: use a number of seconds from 0 on")
    return value if isinstance(value, Fraction) else Fraction(repr(float(value)))


def first_time(path: str | os.PathLike) -> Fraction:
    """When the first frame of a video is shown, by the file's own clock; 0 if that is not told. Raises VideoError."""
    with _open_stream(Path(path)) as (container, stream):
        first = next(filter(None, _decode(path, container, stream)), None)
        told = first is not None and first.pts is not None and not _in_order_of_decoding(container, stream)
        return first.pts * stream.time_base if told else Fraction(0)


def _in_order_of_decoding(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether FFmpeg's times are no times of showing: AVI has none, and H.264's frames lie there in another order."""
    return container.format.name == "avi" and _codec(stream) in ("h264", "hevc")


@contextlib.contextmanager
def _open_stream(path: Path, one_thread: bool = False) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    try:
        container = av.open(os.path.abspath(path))  # a relative "12:30" would be a protocol
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: not a video that can be read ({reason(error)})") from None
    with container:
        # A cover picture in a sound file counts as a video stream; text files pass as videos of a terminal.
        covers = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & covers and _codec(s) not in ("", "ansi")]
        if not streams:
            raise VideoError(f"{path}: holds no video stream of a known codec")
        if one_thread:
            streams[0].codec_context.thread_count = 1
        else:
            streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _codec(stream: av.VideoStream) -> str:
    """The codec's name; "" for one that FFmpeg does not know, as of protected films."""
    return stream.codec_context.name if stream.codec_context else ""


def _decode(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, strict: bool = False
) -> Iterator[av.VideoFrame | None]:
    """None stands for a packet that cannot be decoded; in strict reading it ends all."""
    count = 0
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                if strict:
                    raise
                frames = [None]
            for frame in frames:
                if strict and frame.is_corrupt:
                    raise VideoError(f"{path}: frame {count} is damaged")
                yield frame
                count += frame is not None
    except av.FFmpegError as error:
        raise VideoError(f"{path}: broken after {count} frames ({reason(error)})") from None


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]
