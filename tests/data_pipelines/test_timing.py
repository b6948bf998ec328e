from fractions import Fraction

import numpy as np
import pytest

from data_pipelines import timing

MS, NTSC = Fraction(1, 1000), Fraction(30000, 1001)


def stamps(rate, count, tick, start=0):
    """Of frames at an exact rate, rounded to ticks."""
    return np.array([start + round(n / (Fraction(rate) * tick)) for n in range(count)])


@pytest.mark.parametrize("told", [NTSC, Fraction(2997, 100), Fraction(989, 33)])
def test_milliseconds_mean_the_usual_rate_however_the_header_averages_it(told):
    assert timing.steady_rate(stamps(NTSC, 300, MS, 67), MS, [told]) == NTSC


@pytest.mark.parametrize("rate", [NTSC, Fraction(24000, 1001), 25, 60, Fraction(25, 2), Fraction(2997, 100), 1])
@pytest.mark.parametrize("tick", [MS, Fraction(1, 90000), Fraction(1, 11988)])
def test_a_told_rate_stays(rate, tick):
    usual = NTSC if rate == Fraction(2997, 100) and tick != Fraction(1, 11988) else rate
    assert timing.steady_rate(stamps(rate, 100, tick), tick, [Fraction(rate)]) == usual


def test_a_wrong_header_gives_way_to_the_stamps():
    assert timing.steady_rate(stamps(NTSC, 300, MS), MS, [Fraction(25)]) == NTSC
    assert timing.steady_rate(stamps(12, 300, Fraction(1, 12000)), Fraction(1, 12000), []) == 12


def test_one_frame_has_the_told_rate_or_none():
    assert timing.steady_rate(np.array([7]), MS, [NTSC]) == NTSC
    assert timing.steady_rate(np.array([7]), MS, []) is None


@pytest.mark.parametrize(("frame", "ticks", "steady"), [(50, 1, True), (50, 3, False), (99, 3, False)])
def test_a_rate_varies_when_one_frame_is_more_than_a_tick_off(frame, ticks, steady):
    found = stamps(25, 100, MS)
    found[frame] += ticks
    assert (timing.steady_rate(found, MS, [Fraction(25)]) == 25) is steady
    assert steady or timing.steady_rate(found, MS, [Fraction(25)]) is None


@pytest.mark.parametrize("tick", [MS, Fraction(1, 50), Fraction(1, 25)])  # as in an AVI
def test_a_frame_left_out_makes_the_rate_vary(tick):
    assert timing.steady_rate(stamps(25, 100, tick), tick, [Fraction(25)]) == 25
    assert timing.steady_rate(np.delete(stamps(25, 100, tick), 50), tick, [Fraction(25)]) is None


def test_the_mean_rate_is_that_of_the_steps():
    assert timing.mean_rate(np.array([10, 20, 50]), MS) == 50
