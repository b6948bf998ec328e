"""Frames that cannot be decoded: the one before is shown instead, as players do, so that the sound stays in step."""

import functools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from absl import logging


def filled(path: Path, frames: Iterator[av.VideoFrame | None], stamps: np.ndarray | None) -> Iterator[av.VideoFrame]:
    """Yields the frames and, for each that is lost after the first, the one before it again. Tells once how many.

    Args:
      frames: decoded ones in order, None for each packet that cannot be decoded.
      stamps: int64 [N], increasing: when the frames of the file are shown, in ticks. Decoders also leave frames out
        without a word, of which these tell. None if the file does not: a packet then counts as a frame.
    """
    shown, number, lost = None, 0, 0
    try:
        for frame in frames:
            place = _place(frame, stamps, number)
            while shown is not None and number < place:
                yield shown
                number, lost = number + 1, lost + 1
            if frame is not None:
                yield frame
                shown, number = frame, number + 1
        while stamps is not None and shown is not None and number < len(stamps):
            yield shown
            number, lost = number + 1, lost + 1
    finally:
        if lost:
            _tell(path, lost)


def _place(frame: av.VideoFrame | None, stamps: np.ndarray | None, number: int) -> int:
    """How many frames come before this one; `number` have come so far."""
    if stamps is None:
        return number + (frame is None)
    if frame is None or frame.pts is None:
        return number
    place = int(np.searchsorted(stamps, frame.pts))
    return place if place < len(stamps) and stamps[place] == frame.pts else number


@functools.cache  # A driver may be read more than once: for its face, for its motion and for each source.
def _tell(path: Path, lost: int) -> None:
    # An error, since reenactment shows no warnings: Orbax has too many.
    logging.error("%s: %d frames cannot be decoded: the one before each is shown instead", path, lost)
