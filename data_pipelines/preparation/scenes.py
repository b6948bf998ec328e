"""Finds where one scene ends and the next begins: `Differences` takes the frames, `find_cuts` the numbers.

A cut is a place where the frames before and the frames after are unlike each other, and both sides are calm in
comparison. Compared are thumbnails of 8×8 pixels, by the mean absolute difference of RGB in 8-bit levels.

- Flash: of all pairs of frames up to three apart with the cut between them, the most alike counts. What is there for
  one or two frames only, a flash or a wrong picture, is thus no cut.
- Fast motion, a whip pan: what counts as calm is how far the picture changes within three frames on either side. In
  steady motion that is more than from frame to frame, even if each frame is shown two or three times.
- Gradual changes: a fade or a dissolve is no cut: both scenes, and what is between them, stay one. At one mixed frame
  between two scenes there are one or two cuts, at two or three mixed frames often none.
- Missed are cuts next to motion that is fast for their difference, and many that are less than five frames apart.

Chosen on 1200 cuts between pieces of a talking head of VoxCeleb and of 16 puppets, also dark, noisy, sped up or small
before a wall, and on 6630 places without a cut: these shots two to eight times too fast and with each frame shown up to
three times, whip pans, shaking, flicker, noise, flashes, fades, a hand before the face. 18 cuts are missed, 15 of them
within the one shot of the talking head, and 12 places taken for cuts, all in what is three times too fast and more. On
1200 other cuts and 24 other puppets: 23 missed, 16 of them within that shot; of 10368 places 22 taken for cuts, one of
them at natural speed. The talking head itself (652 frames at 10 a second) has at most 1.9 levels between neighbours,
and no cut. Lab, or weighing by the pictures' contrast, makes about as many errors; thumbnails of 16 or 32 pixels, HSV
and longer windows make more; judging the calm from one frame to the next makes five times as many.
"""

import array
import collections

import cv2
import numpy as np

GAP = 3  # Frames; one less is the longest flash that is no cut.
_SIDE = 8
_LEVELS = 4.0  # The least difference of a cut: twice that of a talking head's quickest nod at 10 frames a second.
_RATIO = 2.25  # The least difference of a cut over that within the sides; 2 and less takes the start of a pan for one.
_WINDOW = 3  # Pairs of frames on each side that tell how calm it is.


class Differences:
    """Takes the frames of a video one by one and keeps 12 bytes of each."""

    def __init__(self) -> None:
        self._last = collections.deque(maxlen=GAP)  # The newest first.
        self._rows = array.array("f")

    def add(self, frame: np.ndarray) -> None:
        """Takes the next frame, uint8 [H, W, 3] RGB, all of one size."""
        thumbnail = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        row = [float(np.abs(thumbnail - other).mean()) for other in self._last]
        self._rows.extend(row + [float("nan")] * (GAP - len(row)))
        self._last.appendleft(thumbnail)

    def array(self) -> np.ndarray:
        """float32 [N, GAP]: entry [n, g - 1] is that of frames n - g and n, in levels of 256; NaN for n < g."""
        return np.array(self._rows, np.float32).reshape(-1, GAP)


def find_cuts(differences: np.ndarray) -> list[int]:
    """The numbers of the frames that begin a new scene, ascending, from `Differences.array()`; frame 0 is not told."""
    across = _across(differences)
    return [n for n in np.flatnonzero(across >= _LEVELS).tolist() if across[n] >= _RATIO * _within(differences, n)]


def _across(differences: np.ndarray) -> np.ndarray:
    """[N]: the least difference of two frames up to GAP apart, one before frame n and the other n or after it."""
    length = len(differences)
    least = np.full(length, np.inf, np.float32)
    for gap in range(1, GAP + 1):
        for after in range(min(gap, length)):
            shifted = differences[after:, gap - 1]
            least[: length - after] = np.fmin(least[: length - after], shifted)  # NaN where there is no such pair
    return np.where(np.arange(length) > 0, least, 0)


def _within(differences: np.ndarray, cut: int) -> float:
    """How far the picture changes in GAP frames beside a cut, both sides averaged; 0 if both are too short to tell."""
    spans = differences[:, GAP - 1]
    before, after = spans[max(GAP, cut - _WINDOW) : cut], spans[cut + GAP : cut + GAP + _WINDOW]
    # The median: another cut, or a flash, nearby is only in some of the pairs.
    sides = [float(np.median(side)) for side in (before, after) if len(side)]
    return sum(sides) / max(len(sides), 1)
