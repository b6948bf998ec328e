"""Sources and drivers from files or arrays: opened, checked and cropped before a network is loaded."""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipelines import detectors, faces, transforms, video
from data_pipelines.sound import Sound
from toontalker_jax.reenactment.templates import TEMPLATE_SUFFIX, MotionTemplate, load_template
from toontalker_jax.reenactment.transfer import KINDS, MOTIONS

_LOOKS = 120  # For the face in a driver, or up to twice as many: what a long video costs stays bounded.
_detector = functools.lru_cache(detectors.open_detector)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of a reenactment: the options of scripts/reenact.py.

    Attributes:
      kind: driver 2 source, one of `KINDS`.
      motion: "relative" (to a reference frame of the driver) or "absolute".
      reference_frame: relative motion: the driver's frame, from 0 at `start`, that has the source's pose; "best" is the
        one nearest to the source's own motion in the canonical space.
      motion_scale: factor on relative motion.
      smooth: standard deviation, in frames, of a Gaussian over the motion codes; 0 = off.
      source_crop, driving_crop: "none", "auto" (the face; one box a video) or "x,y,w,h" in pixels.
      fit: what makes a rectangle square: "crop" or "pad".
      detector: a file for "auto", a cascade (.xml) or a network (.onnx: see `detectors.open_detector`); "" is OpenCV's
        own cascade.
      crop_scale: side of an automatic box over that of the face, 1 or more.
      paste_back: put the result back into the whole source picture.
      side_by_side: show source | driver | result.
      start, end, max_frames: the part of the driver, in seconds and frames.
      sound: copy the driver's sound into an .mp4.
      tag: say in the file that it is synthetic, and by which network.
      batch_size: frames computed at once.

    Raises:
      ValueError: a value outside of these, or two that do not go together.
    """

    kind: str = "r2c"
    motion: str = "relative"
    reference_frame: int | str = 0
    motion_scale: float = 1.0
    smooth: float = 0.0
    source_crop: str = "none"
    driving_crop: str = "none"
    fit: str = "crop"
    detector: str = ""
    crop_scale: float = faces.CROP_SCALE
    paste_back: bool = False
    side_by_side: bool = False
    start: float = 0.0
    end: float | None = None
    max_frames: int | None = None
    sound: bool = True
    tag: bool = True
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, values in (("kind", KINDS), ("motion", MOTIONS), ("fit", ("crop", "pad"))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} = {getattr(self, name)!r}: must be one of {', '.join(values)}.")
        for name, low in (("motion_scale", 0), ("smooth", 0), ("crop_scale", 1), ("batch_size", 1)):
            if not low <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: must be a number of {low} or more.")
        frame = self.reference_frame
        if frame != "best" and not (isinstance(frame, int) and frame >= 0):
            raise ValueError(f"reference_frame = {frame!r}: must be a number from 0 on, or best.")
        if self.motion == "absolute" and (frame != 0 or self.motion_scale != 1):
            raise ValueError("reference_frame and motion_scale belong to relative motion: absolute motion has none.")
        for crop in (self.source_crop, self.driving_crop):
            if crop not in ("none", "auto"):
                faces.parse_box(crop)
        if self.detector or "auto" in (self.source_crop, self.driving_crop):
            _detector(self.detector)

    @property
    def whole_motion(self) -> bool:
        """Whether the driver's motion has to be known to its end before the first frame is made."""
        return self.reference_frame != 0


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A picture to move: the whole of it, and the square that the network sees."""

    path: Path
    picture: np.ndarray | None  # uint8 [H, W, 3]; None once put down
    box: faces.Box

    def put_down(self) -> "Source":
        """Without the picture of `path`, so that many sources take no memory until their turn comes."""
        return dataclasses.replace(self, picture=None)

    def taken_up(self) -> "Source":
        """With the picture, read again if it was put down. Raises ValueError if that fails."""
        return self if self.picture is not None else dataclasses.replace(self, picture=video.read_image(self.path))

    def view(self, size: int) -> np.ndarray:
        """uint8 [size, size, 3]."""
        return transforms.resize(faces.crop(self.picture, self.box), size, size)


@dataclasses.dataclass(frozen=True, eq=False)
class Driver:
    """What moves a source: the frames of a video, GIF, folder, image or array; or a motion template instead."""

    path: Path
    frames: video.Section | Sequence[np.ndarray] | None = None
    box: faces.Box | None = None
    template: MotionTemplate | None = None

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second; that of still pictures for an array."""
        return getattr(self.template or self.frames, "frame_rate", video.STILL_FRAME_RATE)

    @property
    def times(self) -> tuple[Fraction, ...] | None:
        """Seconds of each frame where the rate varies."""
        return getattr(self.template or self.frames, "times", None)

    @property
    def num_frames(self) -> int | None:
        """None where only decoding to the end would tell."""
        if isinstance(self.frames, video.Section):
            return self.frames.num_frames
        return len(self.template.codes if self.template else self.frames)

    @property
    def sound(self) -> Sound | None:
        """The sound of the frames; None if they are not a file's."""
        section = self.frames
        return Sound(section.path, *section.interval) if isinstance(section, video.Section) else None

    def views(self, size: int) -> Iterator[np.ndarray]:
        """uint8 [size, size, 3] for each frame, from the first one, each time it is called."""
        first = None
        for number, frame in enumerate(self.frames):
            check_picture(f"{self.path}: frame {number}", frame)
            first = first or frame.shape
            if frame.shape != first:
                raise ValueError(f"{self.path}: frame {number} is {frame.shape}, the first {first}: use one size.")
            yield transforms.resize(faces.crop(frame, self.box), size, size)


def check_picture(name: str, picture: np.ndarray) -> None:
    """Raises ValueError for what is not uint8 [H, W, 3] with a pixel."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"{name} is {picture.dtype} {picture.shape}: give RGB pictures, uint8 [H, W, 3].")


def open_source(source: str | os.PathLike | np.ndarray, options: Options) -> Source:
    """A picture by its path, or uint8 [H, W, 3] RGB itself.

    Raises:
      ValueError: not a picture, no face in it, or a box that reaches beyond it.
    """
    if isinstance(source, np.ndarray):
        path, picture = Path("source"), source
        check_picture("source", picture)
    else:
        path, picture = Path(source), video.read_image(source)
    return Source(path, picture, _box(path, [picture], options.source_crop, "source_crop", options))


def open_driver(driver: str | os.PathLike | Sequence[np.ndarray], options: Options) -> Driver:
    """A video, GIF, folder of frames, image or motion template by its path, or frames uint8 [H, W, 3] RGB themselves.

    Raises:
      ValueError: none of these, no frame in the part asked for, no face, or options that a template cannot serve.
    """
    if not isinstance(driver, (str, os.PathLike)):
        path, frames = Path("driver"), driver
        _check_whole(path, options)
        if not len(frames):
            raise ValueError(f"{path}: no frames.")
        check_picture(f"{path}: frame 0", frames[0])
    else:
        path = Path(driver)
        if path.suffix.lower() == TEMPLATE_SUFFIX:
            return _open_template(path, options)
        frames = video.Section(path, options.start, options.end, options.max_frames)
    opened = Driver(path, frames, _box(path, frames, options.driving_crop, "driving_crop", options))
    length, number = opened.num_frames, options.reference_frame
    if number != "best" and length is not None and number >= length:
        raise ValueError(f"{path}: reference_frame = {number}, but there are {length} frames (from 0).")
    return opened


def _open_template(path: Path, options: Options) -> Driver:
    _check_whole(path, options)
    if options.side_by_side:
        raise ValueError(f"{path}: side_by_side shows the driver; a motion template has no pictures.")
    if options.driving_crop != "none":
        raise ValueError(f"{path}: driving_crop cuts pictures; a motion template has none.")
    return Driver(path, template=load_template(path))


def _check_whole(path: Path, options: Options) -> None:
    if options.start or options.end is not None or options.max_frames is not None:
        raise ValueError(f"{path}: start, end and max_frames cut a file; a motion template or an array is used whole.")


def _box(path: Path, frames: video.Section | Sequence[np.ndarray], crop: str, flag: str, options: Options) -> faces.Box:
    """One square box for all frames."""
    height, width = next(iter(frames)).shape[:2]
    if crop == "none":
        return faces.squared(faces.Box(0, 0, width, height), options.fit)
    if crop == "auto":
        length = frames.num_frames if isinstance(frames, video.Section) else len(frames)
        every = max(1, (length or 5 * _LOOKS) // _LOOKS)
        found = faces.follow(frames, _detector(options.detector), every)
        return faces.steady_box(found, height, width, options.crop_scale, str(path), f"--{flag}")
    box = faces.parse_box(crop)
    try:
        faces.check_inside(box, height, width)
    except faces.FaceError as error:
        raise ValueError(f"{path}: --{flag}: {error}") from None
    return faces.squared(box, options.fit)
