"""Writes frames: to mp4 files with the driver's sound, to GIFs, to folders of PNG files.

Frames and sound are written as they come, so that memory does not grow with the length.
"""

import contextlib
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_pipelines import colour, comments, transforms
from data_pipelines.sound import Sound, SoundCopy
from data_pipelines.video import VideoError, reason

_GIF_MAX_RATE = 50  # A GIF counts hundredths of a second, and players slow a delay of 1 down to 10.
_FINEST_TICK = Fraction(1, 1_000_000)


@contextlib.contextmanager
def open_writer(
    path: str | os.PathLike,
    frame_rate: Fraction | int,
    *,
    times: Sequence[Fraction] | None = None,
    sound: Sound | None = None,
    comment: str = "",
) -> Iterator["_Writer"]:
    """Opens a writer with `.write(frame)` for uint8 [H, W, 3] RGB frames, all of one size.

    `path` ends in .mp4 (H.264, yuv420p, crf 17, tagged BT.709, limited range; even sides), in .gif (endless loop, a
    palette a frame, times rounded to 1/100 s, at most 50 frames/s), or in no suffix (a folder of 000000.png …, absent
    or empty; rate and times are lost). All is written under a temporary name beside `path` and moved there at the end,
    over an older file; after an error nothing is left and the older file stays.

    Args:
      path: see above.
      frame_rate: frames per second, exact.
      times: when each frame is shown, in seconds, increasing; None for frame / frame_rate. The last one is shown for
        1 / frame_rate. An mp4 keeps them exactly, or to 1/1000000 s if they share no coarser clock.
      sound: copied into an mp4 as it is, not encoded anew; elsewhere ignored.
      comment: kept in the file, in each file of a folder; `comments.of_file` reads it.

    Raises:
      VideoError: at once if `path`, rate, times or sound cannot be; later if a frame cannot be, if none was written
        or if writing fails, of a full disk for one.
    """
    path, frame_rate = Path(path), Fraction(frame_rate)
    writer_class = check_path(path)
    check_timing(path, frame_rate, times)
    with SoundCopy(sound if writer_class is _Mp4Writer else None) as sound_copy, _moved_at_the_end(path) as unfinished:
        writer = writer_class(unfinished, path, frame_rate, times, sound_copy, comment)
        try:
            yield writer
            if writer.shape is None:
                raise VideoError(f"{path}: no frame was written")
            with _failures_told(path):
                writer.finish()
        except BaseException:
            with contextlib.suppress(av.FFmpegError, OSError):  # of a full disk: the first error says more
                writer.close()
            raise
        with _failures_told(path):
            writer.close()
            writer.sign()


def check_path(path: str | os.PathLike) -> type["_Writer"]:
    """Raises VideoError if the path cannot be, as `open_writer` would. Returns the kind of writer."""
    path = Path(path)
    kinds = {".mp4": _Mp4Writer, ".gif": _GifWriter, "": _FolderWriter}
    writer_class = kinds.get(path.suffix.lower())
    if writer_class is None:
        raise VideoError(
            f"{path}: cannot write {path.suffix} files: use .mp4, .gif or no suffix for a folder of PNG files"
        )
    if path.suffix:
        in_the_way = path.is_dir()
    else:
        in_the_way = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if in_the_way:
        raise VideoError(f"{path}: something else is in the way: choose another path or delete it")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise VideoError(f"{path}: cannot be written: {folder} is no folder that one may write to")
    return writer_class


def check_timing(
    path: str | os.PathLike,
    frame_rate: Fraction | int,
    times: Sequence[Fraction] | None = None,
    sound: Sound | None = None,
) -> None:
    """Raises VideoError if rate, times or sound cannot be in a file of this name, as `open_writer` would."""
    suffix = Path(path).suffix.lower()
    _check_times(Path(path), frame_rate, times, _GIF_MAX_RATE if suffix == ".gif" else None)
    with SoundCopy(sound if suffix == ".mp4" else None):
        pass


def _check_times(path: Path, frame_rate: Fraction, times: Sequence[Fraction] | None, max_rate: int | None) -> None:
    if frame_rate <= 0 or (max_rate and frame_rate > max_rate):
        raise VideoError(
            f"{path}: a frame rate of {float(frame_rate):g}: it must be above 0 and, in a GIF, at most"
            f" {_GIF_MAX_RATE}: write an .mp4"
        )
    for number, (time, later) in enumerate(itertools.pairwise(times or ()), 1):
        if not 0 <= time <= later - _FINEST_TICK:
            raise VideoError(
                f"{path}: frame {number} is shown at {float(later):g} s, the one before at {float(time):g} s:"
                " times count from 0 and increase"
            )


@contextlib.contextmanager
def _moved_at_the_end(path: Path) -> Iterator[Path]:
    """A path to write to, in a temporary folder beside `path`; what is there goes to `path` if no error comes."""
    path = path.resolve()  # where a link leads
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise VideoError(f"{path}: cannot be written ({reason(error)})") from None
    try:
        yield temporary / path.name
        os.replace(temporary / path.name, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _failures_told(path: Path) -> Iterator[None]:
    """What a full disk raises names the temporary file, or none."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: could not be written, nothing of it is kept ({reason(error)})") from None


class _Writer:
    """What the writers share: frames are counted and checked. `shape` is that of the first frame, None before."""

    def __init__(
        self,
        path: Path,
        target: Path,
        frame_rate: Fraction,
        times: Sequence[Fraction] | None,
        sound: SoundCopy,
        comment: str,
    ):
        self._path, self._target = path, target  # where it is written, and moved to
        self._rate = frame_rate
        self._times = times
        self._sound = sound
        self._comment = comment
        self.shape: tuple[int, int, int] | None = None
        self.count = 0

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 [H, W, 3] RGB. Raises VideoError for another type, shape or size, or one too many."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise VideoError(
                f"{self._path.name}: frame {self.count} is {frame.dtype} {frame.shape}: use uint8 [H, W, 3]"
            )
        if 0 in frame.shape:
            raise VideoError(f"{self._path.name}: frame {self.count} is {frame.shape[1]}×{frame.shape[0]}: no picture")
        if self._times is not None and self.count == len(self._times):
            raise VideoError(f"{self._path.name}: one frame more than the {self.count} times given")
        if self.shape is None:
            with _failures_told(self._target):
                self._start(*frame.shape[:2])
            self.shape = frame.shape
        if frame.shape != self.shape:
            raise VideoError(f"{self._path.name}: frame {self.count} is {frame.shape}, the first was {self.shape}")
        with _failures_told(self._target):
            self._append(frame)
        self.count += 1

    def _time(self, number: int) -> Fraction:
        """When a frame is shown, in seconds; for the number after the last, when the last one ends."""
        if self._times is None:
            return number / self._rate
        return self._times[number] if number < len(self._times) else self._times[-1] + 1 / self._rate

    def finish(self) -> None:
        """Writes what is still held back."""

    def close(self) -> None:
        """Frees the file; called also after an error."""

    def sign(self) -> None:
        """Adds the comment if that takes a complete file."""


class _FolderWriter(_Writer):
    def _start(self, height: int, width: int) -> None:
        self._path.mkdir()

    def _append(self, frame: np.ndarray) -> None:
        png = transforms.encode_png(frame)
        if self._comment:
            png = comments.add_to_png(png, self._comment)
        (self._path / f"{self.count:06d}.png").write_bytes(png)


class _StreamWriter(_Writer):
    """A file with one video stream; the subclasses say which and turn RGB into its pixel format."""

    _container = None

    def _open(self, file_format: str, codec: str, tick: Fraction, **stream_settings) -> None:
        """Opens the file; frames are shown at whole ticks, in seconds."""
        self._tick = tick
        self._container = av.open(str(self._path), "w", format=file_format)
        self._stream = self._container.add_stream(codec, rate=self._rate)
        self._stream.codec_context.time_base = tick
        for name, value in stream_settings.items():
            setattr(self._stream, name, value)

    def _frame(self, image: np.ndarray, start: int) -> av.VideoFrame:
        """A frame that is shown from the tick `start` on; the encoder lets the last one last 1 / rate."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = start, self._tick
        return frame

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        if self._container is not None:
            self._container.close()


class _Mp4Writer(_StreamWriter):
    def _start(self, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise VideoError(
                f"{self._path.name}: an mp4 needs even sides, not {width}×{height}: pad the frames or use .gif"
            )
        self._open(
            "mp4",
            "libx264",
            1 / self._rate if self._times is None else _common_tick(self._times),
            height=height,
            width=width,
            pix_fmt="yuv420p",
            options={"crf": "17", "preset": "medium"},
            **colour.BT709_TAGS,
        )
        if self._comment:
            self._container.metadata["comment"] = self._comment
        self._sound.start(self._container)

    def _append(self, frame: np.ndarray) -> None:
        start = round(self._time(self.count) / self._tick)
        self._container.mux(self._stream.encode(colour.to_bt709(self._frame(frame, start))))
        self._sound.copy(until=self._time(self.count + 1))

    def finish(self) -> None:
        super().finish()
        self._sound.copy()


def _common_tick(times: Sequence[Fraction]) -> Fraction:
    """The longest tick of which all times are whole numbers, but not below _FINEST_TICK."""
    ticks = 1
    for time in times:
        ticks = math.lcm(ticks, time.denominator)
        if ticks > 1 / _FINEST_TICK:
            return _FINEST_TICK
    return Fraction(1, ticks)


class _GifWriter(_StreamWriter):
    def _start(self, height: int, width: int) -> None:
        tick = Fraction(1, 100)
        self._next = 0
        self._open("gif", "gif", tick, height=height, width=width, pix_fmt="pal8")
        # A palette a frame: one for all would hold every frame in memory until the last is known.
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=tick)
        split = self._graph.add("split")
        palette = self._graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use = self._graph.add("paletteuse", "new=1:dither=sierra2_4a")
        sink = self._graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        self._graph.configure()

    def _append(self, frame: np.ndarray) -> None:
        # Two ticks at least (_GIF_MAX_RATE); frames that come faster are late until slower ones follow.
        start = max(self._next, round(self._time(self.count) / self._tick))
        self._next = start + 2
        self._graph.vpush(self._frame(frame, start))
        self._drain()

    def finish(self) -> None:
        self._graph.vpush(None)
        self._drain()
        super().finish()

    def _drain(self) -> None:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            self._container.mux(self._stream.encode(frame))

    def sign(self) -> None:
        if self._comment:
            comments.add_to_gif(self._path, self._comment)
