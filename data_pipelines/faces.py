"""Follows the face, gives a video one steady square crop box, cuts it out and pastes a result back.

Pictures are uint8 [H, W, 3] RGB; a box counts full-resolution pixels from the upper left corner.
"""

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines import transforms

CROP_SCALE = 1.9  # Side of an automatic box over that of the face: hair, chin and the top of the shoulders.

_REACH = 1.0  # Between two looks a face moves, and changes its size (in halvings), less than this many sides.
# A head with its hair in the sides of the face's box: its extent, and how far its middle lies above the box's.
_HEAD, _RISE = 1.5, 0.1


class FaceError(ValueError):
    """A box, a detector or a search without a face; the message is one line that says why and what to do."""


class Box(NamedTuple):
    """A rectangle in pixels; it may reach beyond the picture."""

    x: int
    y: int
    width: int
    height: int


Detector = Callable[[np.ndarray], list[Box]]  # Picture -> its faces, largest first.


def parse_box(text: str) -> Box:
    """Reads "x,y,width,height" in whole pixels. Raises FaceError for anything else and for sides below 1."""
    if not re.fullmatch(r"\s*-?[0-9]+\s*(,\s*-?[0-9]+\s*){3}", text):
        raise FaceError(f"{text!r}: not a box: write x,y,width,height in whole pixels, as in 40,0,256,256")
    box = Box(*map(int, text.split(",")))
    if box.width < 1 or box.height < 1:
        raise FaceError(f"{text!r}: a box of {box.width}×{box.height} pixels: width and height are at least 1")
    return box


def check_inside(box: Box, height: int, width: int) -> None:
    """Raises FaceError if the box reaches beyond a picture of this size."""
    if box.x < 0 or box.y < 0 or box.x + box.width > width or box.y + box.height > height:
        values, whole = (",".join(map(str, b)) for b in (box, (0, 0, width, height)))
        raise FaceError(f"box {values} reaches beyond the picture of {width}×{height}: keep it within {whole}")


def squared(box: Box, how: str) -> Box:
    """The square about the box's middle: "crop" of its shorter side, "pad" of its longer one.

    An odd rest is cut, or added, below/right, as in `transforms.center_crop_square` and `pad_square`.
    """
    if how not in ("crop", "pad"):
        raise FaceError(f"how is {how!r}: choose crop or pad")
    if how == "crop":
        side = min(box.width, box.height)
        return Box(box.x + (box.width - side) // 2, box.y + (box.height - side) // 2, side, side)
    side = max(box.width, box.height)
    return Box(box.x - (side - box.width) // 2, box.y - (side - box.height) // 2, side, side)


def crop(image: np.ndarray, box: Box) -> np.ndarray:
    """Cuts [H, W, C] to [box.height, box.width, C]; where the box reaches beyond, the edge pixels repeat."""
    rows = np.arange(box.y, box.y + box.height).clip(0, image.shape[0] - 1)
    columns = np.arange(box.x, box.x + box.width).clip(0, image.shape[1] - 1)
    return image[np.ix_(rows, columns)]


def follow(frames: Iterable[np.ndarray], detector: Detector, every: int = 5) -> list[Box]:
    """The boxes of one face in every `every`-th frame, in order; frames in which it is not found give none.

    All faces are followed, each from look to look by position and size; the one that is seen most often wins, where
    a sighting counts the less the more faces the detector puts before it. What is taken for a face now and then thus
    stays out. Frames are read once, one at a time. Returns [] if there is no face at all.
    """
    if every < 1:
        raise FaceError(f"every is {every}: look at every frame (1) or at every 2nd, 3rd …")
    return [box for _, box in sightings(map(detector, itertools.islice(frames, 0, None, every)))]


def sightings(looks: Iterable[Sequence[Box]]) -> list[tuple[int, Box]]:
    """The face that `follow` follows, as (number of the look, box) in order, from what a detector found in each look.

    `looks` holds the boxes of each look, largest first. Returns [] if there is no face at all.
    """
    tracks: list[_Track] = []
    for look, boxes in enumerate(looks):
        _extend(tracks, boxes, look)
    if not tracks:
        return []
    followed = max(tracks, key=lambda track: track.weight)
    return list(zip(followed.looks, followed.boxes, strict=True))


@dataclasses.dataclass
class _Track:
    boxes: list[Box]
    weight: float
    looks: list[int]  # Those that saw it.

    def distance(self, box: Box) -> float:
        # To the nearest of the last three: one false box does not lead the track astray.
        return min(_distance(own, box) for own in self.boxes[-3:])


def _distance(one: Box, other: Box) -> float:
    """Between middles, in sides of the face, plus that between sizes, in halvings."""
    sizes = [math.sqrt(box.width * box.height) for box in (one, other)]
    across = one.x + one.width / 2 - other.x - other.width / 2
    down = one.y + one.height / 2 - other.y - other.height / 2
    return math.hypot(across, down) / math.sqrt(sizes[0] * sizes[1]) + abs(math.log2(sizes[0] / sizes[1]))


def _extend(tracks: list[_Track], boxes: Sequence[Box], look: int) -> None:
    """Gives each box to the nearest track within reach, the closest pairs first; the others start tracks."""
    pairs = [(track.distance(box), t, b) for t, track in enumerate(tracks) for b, box in enumerate(boxes)]
    placed = set()
    for distance, t, b in sorted(pairs):
        reach = _REACH * min(look - tracks[t].looks[-1], 3)  # A face lost for longer may turn up further away.
        if distance <= reach and tracks[t].looks[-1] < look and b not in placed:
            placed.add(b)
            tracks[t].boxes.append(boxes[b])
            tracks[t].weight += 1 / (b + 1)
            tracks[t].looks.append(look)
    tracks.extend(_Track([box], 1 / (b + 1), [look]) for b, box in enumerate(boxes) if b not in placed)


def steady_box(
    found: Sequence[Box],
    height: int,
    width: int,
    scale: float = CROP_SCALE,
    name: str = "the frames",
    flag: str = "--crop",
) -> Box:
    """One square box for a whole video of [height, width], from the face's boxes in some of its frames.

    Its side is `scale` times the median face's; it lies about the median head and is moved, then enlarged, as far as
    the head needs to stay inside in nine tenths of the boxes. The picture limits it: never beyond, never squashed.
    The default frames a head with its hair and the top of the shoulders. `name` and `flag` are for the message.

    Raises:
      FaceError: `found` is empty, or `scale` is below 1.
    """
    if not scale >= 1:
        raise FaceError(f"scale is {scale}: the box has at least the size of the face, use 1 or more")
    if not found:
        raise FaceError(f"{name}: no face found: pass {flag}=x,y,width,height, {flag}=none or another --detector")
    x, y, w, h = np.asarray(found, np.float64).T
    size = np.sqrt(w * h)
    middles = y + h / 2 - _RISE * size, x + w / 2
    head = min(_HEAD, scale) * size / 2
    ends = [(np.percentile(middle - head, 5), np.percentile(middle + head, 95)) for middle in middles]
    wanted = max(scale * np.median(size), *(high - low for low, high in ends))
    side = min(math.ceil(wanted), height, width)
    top, left = (
        _start(np.median(middle), *end, side, length)
        for middle, end, length in zip(middles, ends, (height, width), strict=True)
    )
    return Box(left, top, side, side)


def _start(middle: float, low: float, high: float, side: int, length: int) -> int:
    """Where `side` pixels of `length` begin: about the middle, with low and high inside as far as there is room."""
    start = middle - side / 2
    if high - low <= side:
        start = min(max(start, high - side), low)
    return min(max(round(start), 0), length - side)


def paste_back(picture: np.ndarray, box: Box, result: np.ndarray, feather: float = 0.1) -> np.ndarray:
    """Puts a result, uint8 [h, w, 3] of any size, where `box` was cut from the picture, uint8 [H, W, 3]; a new array.

    The result is resized to the box and fades in over `feather` of the box's shorter side: weight 0 in its outermost
    pixels, 1 inside; along a side that lies on or beyond the picture's border it does not fade. Outside the box
    nothing changes.

    Raises:
      FaceError: the result is not uint8, or `feather` is not in 0..0.5.
    """
    if result.dtype != np.uint8:
        raise FaceError(f"the result is {result.dtype}: paste an 8-bit picture (transforms.to_uint8)")
    if not 0 <= feather <= 0.5:
        raise FaceError(f"feather is {feather}: use 0 to 0.5")
    height, width = picture.shape[:2]
    (top, bottom), (left, right) = _visible(box.y, box.height, height), _visible(box.x, box.width, width)
    fitted = transforms.resize(result, box.height, box.width)
    fitted = fitted[top - box.y : bottom - box.y, left - box.x : right - box.x]
    pasted = picture.copy()
    under = picture[top:bottom, left:right].astype(np.float32)
    blended = under + _weights(box, height, width, feather) * (fitted - under)
    pasted[top:bottom, left:right] = np.round(blended)
    return pasted


@functools.lru_cache(maxsize=8)  # One for a whole video.
def _weights(box: Box, height: int, width: int, feather: float) -> np.ndarray:
    """The result's share in the visible part of the box: float32 [h, w, 1]."""
    reach = feather * min(box.width, box.height)
    down, across = _ramp(box.y, box.height, height, reach), _ramp(box.x, box.width, width, reach)
    return (down[:, None] * across)[..., None].astype(np.float32)


def _ramp(start: int, side: int, length: int, reach: float) -> np.ndarray:
    position = np.arange(*_visible(start, side, length)) - start
    before = position if start > 0 else np.inf
    after = side - 1 - position if start + side < length else np.inf
    share = np.clip(np.minimum(before, after) / max(reach, 1), 0, 1) * np.ones(len(position))
    return share * share * (3 - 2 * share)


def _visible(start: int, side: int, length: int) -> tuple[int, int]:
    """The part of start..start + side within 0..length, as its two ends."""
    first = min(max(start, 0), length)
    return first, max(first, min(start + side, length))
