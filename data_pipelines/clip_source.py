"""What a source of clips is, whatever it reads."""

import abc
import functools
from collections.abc import Callable, Sequence

import numpy as np


class BadRecord(ValueError):
    """A frame of an opened source that cannot be read or decoded; the message names the clip and where it lies."""


class ClipSource(abc.ABC):
    """Clips of one domain. Reading is thread-safe; a frame that cannot be read raises BadRecord.

    Attributes:
      lengths: the number of frames of each clip.
      identities: who is seen in each clip; a clip of which nothing is known has an identity of its own.
    """

    lengths: Sequence[int]
    identities: Sequence[str]

    @abc.abstractmethod
    def __len__(self) -> int:
        """The number of clips."""

    @abc.abstractmethod
    def name(self, clip: int) -> str:
        """A name for messages and reports."""

    @abc.abstractmethod
    def frame(self, clip: int, index: int) -> np.ndarray:
        """Frame `index` of a clip, uint8 [H, W, 3] RGB."""

    def fetch(self, clip: int, index: int) -> Callable[[], np.ndarray]:
        """Reads a frame's bytes now, where they lie in a file of their own; the function decodes them."""
        return functools.partial(self.frame, clip, index)


def check_index(clips: ClipSource, clip: int, index: int) -> None:
    """Raises IndexError if the clip has no such frame."""
    if not 0 <= index < clips.lengths[clip]:
        raise IndexError(f"clip {clips.name(clip)} has no frame {index}: it has {clips.lengths[clip]}")


def frame_range(name: str, length: int, first: int | None, last: int | None) -> range:
    """The frames [first, last) of a clip of `length` frames."""
    frames = range(first or 0, length if last is None else last)
    if not 0 <= frames.start < frames.stop <= length:
        raise ValueError(f"{name}: frames [{frames.start}, {frames.stop}) asked for, but it has {length}")
    return frames
