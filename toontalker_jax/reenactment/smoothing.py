"""Smoothing of motion codes over time, against jitter."""

import collections
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np


def smooth(codes: Iterable[np.ndarray], sigma: float) -> Iterator[np.ndarray]:
    """Yields each code averaged with its neighbours in time by a Gaussian: no delay, as many codes as came in.

    Looks 3 sigma ahead and holds 6 sigma codes. At both ends the weights of the frames that exist are renormalised.

    Args:
      codes: float32 [K, d], one a frame.
      sigma: standard deviation in frames; 0 leaves the codes as they are.

    Raises:
      ValueError: sigma is negative or not finite.
    """
    if not 0 <= sigma < math.inf:
        raise ValueError(f"smooth = {sigma}: must be a number of frames, 0 or more.")
    return iter(codes) if sigma == 0 else _smooth(codes, sigma)


def _smooth(codes: Iterable[np.ndarray], sigma: float) -> Iterator[np.ndarray]:
    radius = max(1, math.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    window: collections.deque = collections.deque([None] * (2 * radius + 1), maxlen=2 * radius + 1)  # None: no frame
    for index, code in enumerate(itertools.chain(codes, [None] * radius)):
        window.append(code)
        if index >= radius and window[radius] is not None:
            there = [i for i, neighbour in enumerate(window) if neighbour is not None]
            mean = np.average([window[i] for i in there], axis=0, weights=weights[there])
            yield mean.astype(np.float32)
