"""Clips whose pictures say where they come from. Worker processes import them by this module's name."""

import numpy as np

from data_pipelines.clip_source import BadRecord, ClipSource

SIZE = 4


class NumberedClips(ClipSource):
    """Flat frames: red is the clip, green the frame, blue the source. Those in `bad`, (clip, frame), cannot be read."""

    def __init__(self, lengths, mark=0, size=SIZE, identities=None, bad=()):
        self.lengths = lengths
        self.identities = identities or [f"clip{clip}" for clip in range(len(lengths))]
        self._mark = mark
        self._size = size
        self._bad = frozenset(bad)

    def __len__(self):
        return len(self.lengths)

    def name(self, clip):
        return f"clip{clip}"

    def frame(self, clip, index):
        if (clip, index) in self._bad:
            raise BadRecord(f"frame {index} of clip {self.name(clip)} in shard{clip}: damaged")
        return np.full((self._size, self._size, 3), (clip, index, self._mark), np.uint8)

    def fetch(self, clip, index):
        """Bad frames of odd numbers cannot be read, those of even numbers not be decoded."""
        if index % 2 == 0:
            return super().fetch(clip, index)
        picture = self.frame(clip, index)
        return lambda: picture


class RampClips(NumberedClips):
    """Frames that are all equal: a colour that grows brighter to the right, so that a mirrored one is told."""

    def frame(self, clip, index):
        row = np.array([100, 110, 120]) + 5 * np.arange(self._size)[:, None]
        return np.broadcast_to(row, (self._size, self._size, 3)).astype(np.uint8)


class UnevenClips(NumberedClips):
    """Frames of clip c are c pixels too wide."""

    def frame(self, clip, index):
        return np.zeros((self._size, self._size + clip, 3), np.uint8)


def levels(images):
    """The values of a batch."""
    assert images.dtype == np.uint8
    return images.astype(int)


def places(images):
    """(clip, frame, mark) of each row of a batch, after a check that it is flat."""
    assert images.dtype == np.uint8 and images.shape[1:] == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(images, images[:, :1, :1].repeat(SIZE, 1).repeat(SIZE, 2))
    return [tuple(row) for row in images[:, 0, 0].tolist()]


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for key in left:
        (assert_equal if isinstance(left[key], dict) else np.testing.assert_array_equal)(left[key], right[key])
