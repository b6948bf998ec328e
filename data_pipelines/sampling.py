"""Which frames make a pair or an analogy tuple. Pure: numbers of frames and a generator in, frame numbers out."""

import numpy as np


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
