"""Which clip and which frames a row takes. Pure: counts and a seed or generator in, numbers out."""

import dataclasses
import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What the rows show. Together with the clips, the batch size and the seed it decides every batch.

    Attributes:
      min_distance: how many frames the two frames of a clip lie apart at least, from 1.
      max_distance: and at most; None: no limit.
      identity_balanced: every identity serves once an epoch, by one of its clips drawn at random, and not every clip.
      flip, colour_jitter: as in augmentation.draw_change; off by default.

    Raises:
      ValueError: a value out of its range.
    """

    min_distance: int = 1
    max_distance: int | None = None
    identity_balanced: bool = False
    flip: bool = False
    colour_jitter: float = 0.0

    def __post_init__(self):
        if self.min_distance < 1:
            raise ValueError(f"min_distance is {self.min_distance}: use at least 1")
        if self.max_distance is not None and self.max_distance < self.min_distance:
            raise ValueError(
                f"max_distance is {self.max_distance}: use at least min_distance, {self.min_distance}, or no limit"
            )
        if not 0 <= self.colour_jitter < 1:
            raise ValueError(f"colour_jitter is {self.colour_jitter}: use a number from 0 (off) to below 1")

    @property
    def augments(self) -> bool:
        """Whether pictures are changed."""
        return self.flip or self.colour_jitter > 0


class ClipOrder:
    """Which clip a row takes: in every epoch of rows each clip once, or each identity.

    Args:
      identities: one a clip.
      balanced: by identity, and not by clip.
      seed: of the order.
    """

    def __init__(self, identities: Sequence[str], balanced: bool, seed: int):
        self._seed = seed
        self._count = len(identities)
        self._groups: list[list[int]] | None = None  # the clips of each identity; None: each clip by itself
        if balanced:
            groups: dict[str, list[int]] = {}
            for clip, identity in enumerate(identities):
                groups.setdefault(identity, []).append(clip)
            self._groups = list(groups.values())
            self._count = len(groups)

    def __call__(self, row: int, attempt: int, rng: np.random.Generator) -> int:
        """The clip of row 0, 1, 2 …; at a later attempt than 0 any, since it replaces one that could not be read."""
        place = int(rng.integers(self._count)) if attempt else clip_of_row(row, self._count, self._seed)
        if self._groups is None:
            return place
        clips = self._groups[place]
        return clips[int(rng.integers(len(clips)))]


def derived_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2**32) whose draws are independent of those of `seed` and of other purposes."""
    return int(np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1)[0])


def row_generator(seed: int, row: int, attempt: int = 0, purpose: int = 0) -> np.random.Generator:
    """A generator for one row alone: streams of different rows, attempts or purposes do not overlap.

    It serves until this thread asks for the next one of this seed and purpose.
    """
    bits, fresh, generator = _philox(seed, purpose, threading.get_ident())
    fresh["state"]["counter"] = np.array((0, purpose, attempt, row), np.uint64)
    bits.state = fresh
    return generator


@functools.lru_cache(maxsize=256)
def _philox(seed: int, purpose: int, thread: int) -> tuple[np.random.Philox, dict[str, Any], np.random.Generator]:
    """Made once, since making one takes longer than all else that a row needs but its frames."""
    bits = np.random.Philox(seed)
    return bits, bits.state, np.random.Generator(bits)


def clip_of_row(row: int, count: int, seed: int) -> int:
    """The clip of row 0, 1, 2 … of an endless list: every clip once an epoch of `count` rows, each newly shuffled.

    grain.MapDataset.shuffle does the same, but takes 65,536 / count tries a row: 15 ms if there is a single clip.
    """
    epoch, position = divmod(row, count)
    return int(_epoch_order(count, seed, epoch)[position])


@functools.lru_cache(maxsize=8)  # two epochs, while one ends, of each list of clips and direction
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.uint32)


def sample_pair(
    length: int, rng: np.random.Generator, min_distance: int = 1, max_distance: int | None = None
) -> tuple[int, int]:
    """Two frame numbers of a clip of `length` frames, from min_distance to max_distance (None: no limit) apart.

    The first is any frame that has a partner, the second any of its partners, each equally likely.

    Raises:
      ValueError: the clip is too short.
    """
    followed = length - min_distance  # the frames 0 … followed - 1 have a partner after them
    if min_distance < 1 or followed < 1:
        raise ValueError(f"a pair {min_distance} apart needs {min_distance + 1} frames, the clip has {length}")
    # In a short clip the frames in the middle have no partner, neither before nor after them.
    first = int(rng.integers(min(length, 2 * followed)))
    first += max(0, min_distance - followed) * (first >= followed)
    furthest = length if max_distance is None else max_distance
    before = range(max(0, first - furthest), max(0, first - min_distance + 1))
    after = range(first + min_distance, min(length, first + furthest + 1))
    drawn = int(rng.integers(len(before) + len(after)))
    return first, before[drawn] if drawn < len(before) else after[drawn - len(before)]


def sample_analogy(
    driver_length: int,
    source_length: int,
    rng: np.random.Generator,
    min_distance: int = 1,
    max_distance: int | None = None,
) -> tuple[int, int, int]:
    """Two frames a, b of a driver clip as in `sample_pair`, and any frame of a source clip."""
    reference, driving = sample_pair(driver_length, rng, min_distance, max_distance)
    return reference, driving, int(rng.integers(source_length))
