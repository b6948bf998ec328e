"""Reads and writes frames: videos, GIFs, folders of frames, single images. Frame rates stay exact fractions.

Frames are uint8 [H, W, 3] RGB, read and written one at a time, so that memory does not grow with the length.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from data_pipelines import colour, transforms

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
STILL_FRAME_RATE = Fraction(25)  # Of a folder of frames or an image, which tell none.
_GIF_MAX_RATE = 50  # A GIF counts hundredths of a second, and players slow a delay of 1 down to 10.


class VideoError(ValueError):
    """A path cannot be read or written as video; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a path holds.

    Attributes:
      kind: "video" (GIFs included), "frames" (a folder of images) or "image".
      frame_rate: frames per second, exact; the average if it varies (a GIF whose delays alternate); STILL_FRAME_RATE
        for frames and images.
      num_frames: None where only decoding to the end would tell.
      height, width: in pixels, upright (a rotation noted in the file is applied).
    """

    kind: str
    frame_rate: Fraction
    num_frames: int | None
    height: int
    width: int


def frame_files(folder: str | os.PathLike) -> list[Path]:
    """The images of a folder in natural order of their names (frame2 before frame10); others are left out."""
    files = (f for f in Path(folder).iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith("."))
    return sorted(files, key=lambda file: natural_key(file.name))


def natural_key(name: str) -> list[tuple[int, str]]:
    """A sorting key by which the numbers in a name count as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads an image file to uint8 [H, W, 3] RGB, upright, without transparency. Raises VideoError."""
    try:
        return transforms.decode(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: {_reason(error)}") from None


def probe(path: str | os.PathLike) -> VideoInfo:
    """Says what a path holds, having decoded its first frame. Raises VideoError if there is none."""
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such file or folder")
    if path.is_dir():
        files = frame_files(path)
        if not files:
            raise VideoError(f"{path}: the folder holds no images ({', '.join(IMAGE_SUFFIXES)})")
        height, width, _ = read_image(files[0]).shape
        return VideoInfo("frames", STILL_FRAME_RATE, len(files), height, width)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        height, width, _ = read_image(path).shape
        return VideoInfo("image", STILL_FRAME_RATE, 1, height, width)
    with _open_stream(path) as (container, stream):
        count = stream.frames or None
        rate = stream.average_rate or stream.guessed_rate
        if container.format.name == "gif" and count and stream.duration:
            rate = count / (stream.duration * stream.time_base)  # FFmpeg says the rate of the first delay.
        first = next(_decode(path, container, stream), None)
    if first is None:
        raise VideoError(f"{path}: not one frame could be decoded")
    if not rate:
        raise VideoError(f"{path}: the file tells no frame rate")
    return VideoInfo("video", Fraction(rate), count, first.shape[0], first.shape[1])


def read_frames(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """Yields the frames of a video, GIF, folder of images or image, uint8 [H, W, 3] RGB, all of one size, lazily.

    Raises:
      VideoError: at once if the path holds no frame; at the frame concerned if it is broken or of another size.
    """
    path = Path(path)
    return _same_size(path, _frames(path, probe(path)))


def _frames(path: Path, info: VideoInfo) -> Iterator[np.ndarray]:
    if info.kind == "frames":
        yield from map(read_image, frame_files(path))
    elif info.kind == "image":
        yield read_image(path)
    else:
        with _open_stream(path) as (container, stream):
            yield from _decode(path, container, stream)


def _same_size(path: Path, frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    first = None
    for number, frame in enumerate(frames):
        first = frame.shape if first is None else first
        if frame.shape != first:
            sizes = f"{frame.shape[1]}×{frame.shape[0]}, the first is {first[1]}×{first[0]}"
            raise VideoError(f"{path}: frame {number} is {sizes}: bring all frames to one size")
        yield frame


@contextlib.contextmanager
def _open_stream(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"{path}: not a video that can be read ({_reason(error)})") from None
    with container:
        # A cover picture in a sound file counts as a video stream; text files pass as videos of a terminal.
        covers = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & covers and s.codec_context.name != "ansi"]
        if not streams:
            raise VideoError(f"{path}: holds no video stream")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _decode(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[np.ndarray]:
    count = 0
    try:
        for frame in container.decode(stream):
            yield np.ascontiguousarray(np.rot90(colour.to_rgb(frame), round(frame.rotation / 90)))
            count += 1
    except av.FFmpegError as error:
        raise VideoError(f"{path}: broken after {count} frames ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]


@contextlib.contextmanager
def open_writer(path: str | os.PathLike, frame_rate: Fraction | int) -> Iterator["_Writer"]:
    """Opens a writer with `.write(frame)` for uint8 [H, W, 3] RGB frames, all of one size.

    `path` ends in .mp4 (H.264, yuv420p, crf 17, tagged BT.709, limited range; even sides), in .gif (endless loop, a
    palette a frame, delays rounded to 1/100 s, at most 50 frames/s), or in no suffix (a folder of 000000.png …, absent
    or empty; the rate is lost). All is written under a temporary name beside `path` and moved there at the end, over
    an older file; after an error nothing is left and the older file stays.

    Raises:
      VideoError: at once if `path` or the rate cannot be; later if a frame cannot be, or if none was written.
    """
    path, frame_rate = Path(path), Fraction(frame_rate)
    kinds = {".mp4": _Mp4Writer, ".gif": _GifWriter, "": _FolderWriter}
    writer_class = kinds.get(path.suffix.lower())
    if writer_class is None:
        raise VideoError(
            f"{path}: cannot write {path.suffix} files: use .mp4, .gif or no suffix for a folder of PNG files"
        )
    if frame_rate <= 0 or (writer_class is _GifWriter and frame_rate > _GIF_MAX_RATE):
        raise VideoError(
            f"{path}: a frame rate of {frame_rate}: use more than 0 and, in a GIF, at most {_GIF_MAX_RATE}"
        )
    if path.suffix:
        in_the_way = path.is_dir()
    else:
        in_the_way = path.is_file() or (path.is_dir() and any(path.iterdir()))
    if in_the_way:
        raise VideoError(f"{path}: something else is in the way: choose another path or delete it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise VideoError(f"{path}: cannot be written ({_reason(error)})") from None
    try:
        unfinished = temporary / path.name
        writer = writer_class(unfinished, frame_rate)
        try:
            yield writer
            if writer.shape is None:
                raise VideoError(f"{path}: no frame was written")
            writer.finish()
        finally:
            writer.close()
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Writer:
    """What the writers share: frames are counted and checked. `shape` is that of the first frame, None before."""

    def __init__(self, path: Path, frame_rate: Fraction):
        self._path = path
        self._rate = frame_rate
        self.shape: tuple[int, int, int] | None = None
        self.count = 0

    def write(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 [H, W, 3] RGB. Raises VideoError for another type, shape or size."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise VideoError(
                f"{self._path.name}: frame {self.count} is {frame.dtype} {frame.shape}: use uint8 [H, W, 3]"
            )
        if self.shape is None:
            self._start(*frame.shape[:2])
            self.shape = frame.shape
        if frame.shape != self.shape:
            raise VideoError(f"{self._path.name}: frame {self.count} is {frame.shape}, the first was {self.shape}")
        self._append(frame)
        self.count += 1

    def finish(self) -> None:
        """Writes what is still held back."""

    def close(self) -> None:
        """Frees the file; called also after an error."""


class _FolderWriter(_Writer):
    def _start(self, height: int, width: int) -> None:
        self._path.mkdir()

    def _append(self, frame: np.ndarray) -> None:
        (self._path / f"{self.count:06d}.png").write_bytes(transforms.encode_png(frame))


class _StreamWriter(_Writer):
    """A file with one video stream; the subclasses say which and turn RGB into its pixel format."""

    _container = None

    def _open(self, file_format: str, codec: str, height: int, width: int, **stream_settings) -> None:
        self._container = av.open(str(self._path), "w", format=file_format)
        self._stream = self._container.add_stream(codec, rate=self._rate)
        for name, value in dict(height=height, width=width, **stream_settings).items():
            setattr(self._stream, name, value)

    def _frame(self, image: np.ndarray) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = self.count, 1 / self._rate
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
            height,
            width,
            pix_fmt="yuv420p",
            options={"crf": "17", "preset": "medium"},
            **colour.BT709_TAGS,
        )

    def _append(self, frame: np.ndarray) -> None:
        self._container.mux(self._stream.encode(colour.to_bt709(self._frame(frame))))


class _GifWriter(_StreamWriter):
    def _start(self, height: int, width: int) -> None:
        self._open("gif", "gif", height, width, pix_fmt="pal8")
        # A palette a frame: one for all would hold every frame in memory until the last is known.
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / self._rate
        )
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
        self._graph.vpush(self._frame(frame))
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
