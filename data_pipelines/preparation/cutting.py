"""Cuts one input item, a video or pictures, into clips of square frames, each encoded.

Raw items, in which a face moves about, are read twice: once to find the scenes and the faces, once to cut them out. Of
a raw video no more is held in memory than the frames of one clip, encoded, and small numbers of every frame.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from data_pipelines import detectors, faces, transforms, video
from data_pipelines.preparation import scenes
from data_pipelines.preparation.cut_options import CROPS, CutOptions

KINDS = ("video", "frames", "strip", "image")

_EVERY = 5  # Frames from look to look for faces …
_LOOKS = 24  # … but at least about so many looks, where the length is known.


class CutClip(NamedTuple):
    """One clip.

    Attributes:
      first: number of its first frame in the input; the others follow without a gap.
      frames: encoded as JPEG or PNG, each of image_size × image_size pixels.
      box: x, y, width, height of the square in pixels of the input; None if whole frames were taken.
    """

    first: int
    frames: list[bytes]
    box: tuple[int, int, int, int] | None


class Dropped(NamedTuple):
    """Frames `first` to `last` of the input, both included (None: the whole item), that are in no clip, and why."""

    first: int | None
    last: int | None
    reason: str


def cut(path: Path, kind: str, options: CutOptions) -> Iterator[CutClip | Dropped]:
    """Cuts an item into clips: same item and options, same bytes.

    Items that are cropped by the face (see `CutOptions.crop`) are raw, and so are films of which a fixed square is
    taken, but for those with a "#" in their names, as clips that were cut before have it. All others become one clip of
    any length. In raw items scenes are told apart; by the face, the one that is seen most often in a scene is followed,
    the scene is trimmed to where it is seen, and one steady square a clip holds it. Every frame of a raw item is in one
    clip or one `Dropped`, in their order.

    Args:
      path: a video file ("video"), a folder of images ("frames"), a picture with square frames side by side ("strip")
        or a picture ("image").
      kind: which of these.
      options: how to cut.

    Yields:
      The clips and what is dropped. An item that is broken anywhere gives nothing but one `Dropped`.

    Raises:
      ValueError: at once for another kind; VideoError, one of these, if a raw item changes while it is cut.
      FaceError: the detector cannot be opened.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: choose {', '.join(KINDS)}")
    return _cut(Path(path), kind, options)


def _cut(path: Path, kind: str, options: CutOptions) -> Iterator[CutClip | Dropped]:
    try:
        frames = _open(path, kind)
        shape = next(iter(frames)).shape[:2]
        if kind == "image":
            options = dataclasses.replace(options, min_frames=1)
        if options.crop == "face" or (options.crop == "auto" and shape[0] != shape[1]):
            parts = _plan(frames, shape, options)
        else:
            # A "#" is in the names of clips that were cut before, as VoxCeleb's are, but not at the start.
            raw = options.crop != "auto" and kind in ("video", "frames") and path.name.find("#") < 1
            parts = _plan_square(frames, shape, raw, options)
    except (video.VideoError, OSError, av.FFmpegError, cv2.error) as error:
        # The caller knows the item; a file in its folder stays named, by what it is called there: wherever the input
        # lies, the same stands in the table.
        yield Dropped(None, None, video.reason(error).removeprefix(f"{path}: ").removeprefix(f"{path}/"))
        return
    yield from _cut_out(path, frames, parts, options)


def _open(path: Path, kind: str) -> video.Section | Sequence[np.ndarray]:
    """The frames, uint8 [H, W, 3], which can be iterated over several times."""
    if kind in ("video", "frames"):
        return video.Section(path, strict=True)
    picture = video.read_still(path)
    height, width = picture.shape[:2]
    if kind == "image":
        return [picture]
    if width % height:
        raise video.VideoError(f"not frames side by side: the width {width} is no multiple of the height {height}")
    return [picture[:, start : start + height] for start in range(0, width, height)]


def _encode(image: np.ndarray, options: CutOptions) -> bytes:
    square = transforms.to_square(image, options.image_size)
    if options.jpeg_quality == 0:
        return transforms.encode_png(square)
    return transforms.encode_jpeg(square, options.jpeg_quality)


def _too_small(side: int, options: CutOptions) -> str:
    """Why a crop of that side is dropped; "" if it is not."""
    least = options.min_side or options.image_size // 2
    return f"crop of {side} pixels, --min_side is {least}" if side < least else ""


def _too_short(length: int, options: CutOptions) -> str:
    least = options.min_frames
    return f"{length} frame{'s' * (length != 1)}, --min_frames is {least}" if length < least else ""


class _Piece(NamedTuple):
    """A clip to be: its first and last frame in the input and the square to cut out."""

    first: int
    last: int
    box: faces.Box | None  # None: the whole frames, in an item that is one clip.


class _Looks(NamedTuple):
    """What was found in frames 0, every, 2 * every … of the input; `shape` is the frames' height and width."""

    shape: tuple[int, int]
    every: int
    found: list[list[faces.Box]]

    def between(self, first: int, last: int) -> range:
        """The numbers of the looks within frames first to last."""
        return range(-(-first // self.every), last // self.every + 1)

    def trim(self, first: int, last: int, good: Collection[int]) -> tuple[int, int]:
        """Frames first to last without those at an end whose look is not among the good ones, ascending."""
        own, good = self.between(first, last), list(good)
        start = first if good[0] == own[0] else good[0] * self.every
        return start, last if good[-1] == own[-1] else good[-1] * self.every


def _plan_square(
    frames: Iterable[np.ndarray], shape: tuple[int, int], raw: bool, options: CutOptions
) -> list[CutClip | _Piece | Dropped]:
    """Reads an item once of which one square is taken, whoever is in it; scenes are told apart only if it is raw."""
    whole = faces.Box(0, 0, shape[1], shape[0])
    box = whole if options.crop in CROPS else faces.parse_box(options.crop)
    try:
        faces.check_inside(box, *shape)
    except faces.FaceError as error:
        return [Dropped(None, None, str(error))]
    square = faces.squared(box, "crop")
    if small := _too_small(square.width, options):
        return [Dropped(None, None, small)]
    if not raw:
        encoded = [_encode(faces.crop(frame, square), options) for frame in frames]
        if short := _too_short(len(encoded), options):
            return [Dropped(None, None, short)]
        return [CutClip(0, encoded, None if square == whole else square)]
    differences = scenes.Differences()
    for frame in frames:
        differences.add(frame)
    parts: list[_Piece | Dropped] = []
    for first, last in _scenes(differences):
        if short := _too_short(last - first + 1, options):
            parts.append(Dropped(first, last, short))
        else:
            parts += [_Piece(a, b, square) for a, b in _divided(first, last, options)]
    if len(parts) == 1 and isinstance(parts[0], _Piece) and square == whole:
        return [parts[0]._replace(box=None)]
    return parts


def _plan(
    frames: video.Section | Sequence[np.ndarray], shape: tuple[int, int], options: CutOptions
) -> list[_Piece | Dropped]:
    """Reads a raw item once; returns what becomes of each of its frames, in their order."""
    detector = detectors.open_detector(options.detector)  # Not shared: a detector serves one thread.
    known = frames.num_frames if isinstance(frames, video.Section) else len(frames)
    every = _EVERY if known is None else max(1, min(_EVERY, known // _LOOKS))
    every = min(every, (options.max_frames + 1) // 2)  # At least one look in each part of a divided scene.
    looks, differences = _Looks(shape, every, []), scenes.Differences()
    for number, frame in enumerate(frames):
        differences.add(frame)
        if number % every == 0:
            looks.found.append(detector(frame))
    parts = (_plan_scene(first, last, looks, options) for first, last in _scenes(differences))
    return list(itertools.chain.from_iterable(parts))


def _scenes(differences: scenes.Differences) -> list[tuple[int, int]]:
    """The first and last frames of the scenes."""
    table = differences.array()
    starts = [0, *scenes.find_cuts(table), len(table)]
    return [(a, b - 1) for a, b in itertools.pairwise(starts)]


def _divided(first: int, last: int, options: CutOptions) -> list[tuple[int, int]]:
    """The frames first to last in as few parts of about equal length as max_frames allows."""
    length = last + 1 - first
    count = -(-length // options.max_frames)
    bounds = [first + length * n // count for n in range(count + 1)]
    return [(a, b - 1) for a, b in itertools.pairwise(bounds)]


def _plan_scene(first: int, last: int, looks: _Looks, options: CutOptions) -> Iterator[_Piece | Dropped]:
    """What becomes of the frames first to last, in which there is no cut."""
    own = looks.between(first, last)
    seen = {own[look]: box for look, box in faces.sightings(looks.found[own.start : own.stop])}
    if reason := _too_short(last - first + 1, options) or _too_seldom("seen", len(seen), len(own), options):
        yield Dropped(first, last, reason)
        return
    start, end = looks.trim(first, last, seen)
    yield from _left_out(first, start - 1, f"the face is seen from frame {start} on")
    for a, b in _divided(start, end, options):
        yield from _plan_piece(a, b, seen, looks, options)
    yield from _left_out(end + 1, last, f"the face is seen up to frame {end}")


def _plan_piece(
    first: int, last: int, seen: dict[int, faces.Box], looks: _Looks, options: CutOptions
) -> Iterator[_Piece | Dropped]:
    """What becomes of the frames first to last, with the face as look -> box."""
    own = looks.between(first, last)
    boxes = {look: seen[look] for look in own if look in seen}
    if reason := _too_seldom("seen", len(boxes), len(own), options):
        yield Dropped(first, last, reason)
        return
    square = faces.steady_box(list(boxes.values()), *looks.shape, options.crop_scale)
    held = [look for look, box in boxes.items() if _holds(square, box)]
    if reason := _too_small(square.width, options) or _too_seldom("in the crop", len(held), len(own), options):
        yield Dropped(first, last, reason)
        return
    start, end = looks.trim(first, last, held)
    if reason := _too_short(end - start + 1, options):
        yield Dropped(first, last, f"the face is in the crop in {reason}")
        return
    yield from _left_out(first, start - 1, f"the face is in the crop from frame {start} on")
    yield _Piece(start, end, square)
    yield from _left_out(end + 1, last, f"the face is in the crop up to frame {end}")


def _left_out(first: int, last: int, reason: str) -> Iterator[Dropped]:
    if first <= last:
        yield Dropped(first, last, reason)


def _holds(square: faces.Box, face: faces.Box) -> bool:
    """Whether the middle half of a face, each way, lies in the square; a way too long for the picture leaves it."""
    return all(
        start <= low + side / 4 and low + 3 * side / 4 <= start + square.width
        for start, low, side in ((square.x, face.x, face.width), (square.y, face.y, face.height))
    )


def _too_seldom(where: str, count: int, looks: int, options: CutOptions) -> str:
    """Why frames are dropped in which the face is there in so many looks; "" if they are not."""
    if not looks:
        return f"shorter than the {_EVERY} frames from one look for a face to the next"
    if not count:
        return f"no face {where} in {looks} look{'s' * (looks != 1)}: another --detector may find one"
    if count / looks < options.min_face_share:
        return f"the face is {where} in {count} of {looks} looks, --min_face_share is {options.min_face_share:g}"
    return ""


def _cut_out(
    path: Path, frames: Iterable[np.ndarray], parts: Sequence[CutClip | _Piece | Dropped], options: CutOptions
) -> Iterator[CutClip | Dropped]:
    """Reads a raw item again, as far as it is needed, and does what was planned; what is done already stays."""
    iterator = iter(frames)
    done = 0
    for part in parts:
        if not isinstance(part, _Piece):
            yield part
            continue
        chosen = itertools.islice(iterator, part.first - done, part.last + 1 - done)
        encoded = [_encode(faces.crop(frame, part.box) if part.box else frame, options) for frame in chosen]
        done = part.last + 1
        if len(encoded) != part.last + 1 - part.first:
            raise video.VideoError(f"{path}: changed while it was cut: start again")
        yield CutClip(part.first, encoded, part.box)
