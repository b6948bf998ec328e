"""Which clip and which frames a row takes. Pure: counts and a seed or generator in, numbers out."""

import functools

import numpy as np


def clip_of_row(row: int, count: int, seed: int) -> int:
    """The clip of row 0, 1, 2 … of an endless list: every clip once an epoch of `count` rows, each newly shuffled.

    grain.MapDataset.shuffle does the same, but takes 65,536 / count tries a row: 15 ms if there is a single clip.
    """
    epoch, position = divmod(row, count)
    return int(_epoch_order(count, seed, epoch)[position])


@functools.lru_cache(maxsize=16)
def _epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def sample_pair(length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Two distinct frame numbers of a clip of `length` frames, each ordered pair equally likely.

    Raises:
      ValueError: the clip has fewer than two frames.
    """
    if length < 2:
        raise ValueError(f"a pair needs two frames, the clip has {length}")
    first = int(rng.integers(length))
    second = int(rng.integers(length - 1))
    return first, second + (second >= first)


def sample_analogy(driver_length: int, source_length: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Two distinct frames a, b of a driver clip and one of a source clip, all uniform. Raises as `sample_pair`."""
    reference, driving = sample_pair(driver_length, rng)
    return reference, driving, int(rng.integers(source_length))
