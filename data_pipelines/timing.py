"""From the time stamps in a file to exact frame rates and times of frames."""

from collections.abc import Iterable
from fractions import Fraction

import numpy as np

# 30 and 30000/1001 lie 0.1% apart; a rate this close to one of that kind is meant to be it.
_CLOSE = Fraction(1, 2000)


def steady_rate(stamps: np.ndarray, tick: Fraction, told: Iterable[Fraction]) -> Fraction | None:
    """The rate by which frame i is shown at i / rate, within a tick; None where there is none: the rate varies.

    Many rates fit a short or coarse clock (milliseconds tell 30000/1001 from 2997/100 after an hour only). The first
    of these wins: a rate told whose frames last a whole number of ticks, a whole number or n·1000/1001 beside it, the
    rate told itself; last what the stamps measure.

    Args:
      stamps: int64 [N], increasing, in ticks.
      tick: seconds.
      told: the rates that the file's header tells, the most trusted first.
    """
    rates, steps = [Fraction(rate) for rate in told], np.diff(stamps)
    if len(stamps) > 1:
        usual = np.sort(steps)[len(steps) // 2]
        if (steps != usual).any() and not (steps % usual).any():
            return None  # Frames were left out. A clock that ticks once a frame, as AVI's, would hide one in a tick.
        rates.append(mean_rate(stamps, tick))
    for rate in rates:
        step = 1 / (rate * tick)
        if step.denominator == 1 and (steps == int(step)).all():
            return rate
        for candidate in (_usual(rate), rate):
            shown = np.arange(len(stamps)) * float(1 / (candidate * tick))
            if np.abs(stamps - stamps[0] - shown).max() <= 1 + 1e-6:  # the latter for rounding
                return candidate
    return None


def mean_rate(stamps: np.ndarray, tick: Fraction) -> Fraction:
    """Frames per second over all steps between the stamps, of which there are two or more."""
    return (len(stamps) - 1) / (int(stamps[-1] - stamps[0]) * tick)


def _usual(rate: Fraction) -> Fraction:
    """The n or n·1000/1001 that is all but the rate; the rate itself if none is."""
    ntsc = Fraction(1000, 1001)
    usual = min(Fraction(round(rate)), round(rate / ntsc) * ntsc, key=lambda known: abs(known - rate))
    return usual if abs(usual - rate) <= rate * _CLOSE else rate
