"""How functions are timed here: ready when the device is, several of them in turn, medians and ranges."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax


def seconds(function: Callable[[], Any]) -> float:
    """Until all that `function()` returns has been computed."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def in_turn(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """{name: seconds of every round}. One call of each before the rounds does not count.

    In turn, so that what else the machine does in the meantime slows all of them.
    """
    for function in functions.values():
        jax.block_until_ready(function())
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return times


def ratio(times: Sequence[float], of: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(times, of, strict=True))
