"""What reenact.py works on: sources and drivers found by their paths, cropped and brought to the network's size."""

import dataclasses
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines import faces, transforms, video
from data_pipelines.clips import VIDEO_SUFFIXES
from toontalker_jax.reenactment.templates import MotionTemplate, load_template

TEMPLATE_SUFFIX = ".npz"


@dataclasses.dataclass(frozen=True)
class Cropping:
    """How a square is found in pictures that may not be square.

    Attributes:
      crop: "none" (the whole picture), "auto" (the face) or "x,y,w,h" in pixels.
      fit: what makes a rectangle square: "crop" or "pad".
      detector: a cascade or ONNX file for "auto"; "" is OpenCV's own.
      scale: side of the automatic square over that of the face.
      flag: the option that set `crop`, for messages.
    """

    crop: str
    fit: str
    detector: str
    scale: float
    flag: str

    def box(self, path: Path, frames: Sequence[np.ndarray] | video.Section) -> faces.Box:
        """One square box for all frames. Raises ValueError: no face, or a box outside the picture."""
        height, width = next(iter(frames)).shape[:2]
        if self.crop == "none":
            return faces.squared(faces.Box(0, 0, width, height), self.fit)
        if self.crop == "auto":
            found = faces.follow(frames, faces.open_detector(self.detector))
            return faces.steady_box(found, height, width, self.scale, str(path), f"--{self.flag}")
        box = faces.parse_box(self.crop)
        faces.check_inside(box, height, width)
        return faces.squared(box, self.fit)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A picture to move: the whole of it, and the square that the network sees."""

    path: Path
    picture: np.ndarray  # uint8 [H, W, 3]
    box: faces.Box

    def view(self, size: int) -> np.ndarray:
        """uint8 [size, size, 3]."""
        return transforms.resize(faces.crop(self.picture, self.box), size, size)


@dataclasses.dataclass(frozen=True, eq=False)
class Driver:
    """What moves a source: a video, GIF, folder of frames or image, or a motion template instead."""

    path: Path
    section: video.Section | None = None
    box: faces.Box | None = None
    template: MotionTemplate | None = None

    @property
    def timing(self) -> video.Section | MotionTemplate:
        """Has `frame_rate` and `times`."""
        return self.section if self.template is None else self.template

    @property
    def num_frames(self) -> int | None:
        return self.section.num_frames if self.template is None else len(self.template.codes)

    def views(self, size: int) -> Iterator[np.ndarray]:
        """uint8 [size, size, 3] for each frame, from the first one, each time it is called."""
        return (transforms.resize(faces.crop(frame, self.box), size, size) for frame in self.section)


def open_source(path: Path, cropping: Cropping) -> Source:
    picture = video.read_image(path)
    return Source(path, picture, cropping.box(path, [picture]))


def open_driver(path: Path, cropping: Cropping, start: float, end: float | None, max_frames: int | None) -> Driver:
    if path.suffix.lower() == TEMPLATE_SUFFIX:
        if start or end is not None or max_frames is not None:
            raise ValueError(f"{path}: --start, --end and --max_frames cut a video; a motion template is used whole.")
        return Driver(path, template=load_template(path))
    section = video.Section(path, start, end, max_frames)
    return Driver(path, section, cropping.box(path, section))


def find(pattern: str, suffixes: Sequence[str]) -> tuple[list[Path], bool]:
    """The inputs that a path, a folder or a glob names, in natural order, and whether it may name several.

    A folder stands for its files with these suffixes; without any it is one input (a folder of frames).

    Raises:
      FileNotFoundError: nothing there.
    """
    path = Path(pattern)
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")]
        return (sorted(files, key=_natural), True) if files else ([path], False)
    if path.exists() or not glob.has_magic(pattern):
        return [path], False
    found = sorted(map(Path, glob.glob(pattern)), key=_natural)
    if not found:
        raise FileNotFoundError(f"{pattern}: no file fits the pattern")
    return found, True


def find_sources(pattern: str) -> tuple[list[Path], bool]:
    return find(pattern, video.IMAGE_SUFFIXES)


def find_drivers(pattern: str) -> tuple[list[Path], bool]:
    return find(pattern, (*VIDEO_SUFFIXES, TEMPLATE_SUFFIX))


def _natural(path: Path) -> list[tuple[int, str]]:
    return video.natural_key(path.name)
