import itertools

import numpy as np
import pytest

from toontalker_jax.reenactment.smoothing import smooth


def codes(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_each_code_is_the_gaussian_mean_of_what_is_there(count):
    raw, sigma = codes(count), 1.5
    radius = 5  # ceil(3 * 1.5)
    distance = np.arange(count)[:, None] - np.arange(count)
    weights = np.exp(-(distance**2) / (2 * sigma**2)) * (abs(distance) <= radius)
    expected = np.einsum("ij,jkd->ikd", weights / weights.sum(1, keepdims=True), raw)
    got = list(smooth(iter(raw), sigma))
    assert len(got) == count and got[0].dtype == np.float32
    np.testing.assert_allclose(np.stack(got), expected, rtol=0, atol=1e-6)


def test_it_takes_jitter_away_and_leaves_slow_motion_where_it_is():
    time = np.arange(100)
    slow, jitter = np.sin(time / 15), 0.2 * (-1.0) ** time
    got = np.stack(list(smooth((slow + jitter)[:, None, None].astype(np.float32), 2.0)))[:, 0, 0]
    # sigma² / 2 · curvature 1/225 gives 0.009; a lag would show as 1/15 a frame.
    assert np.abs(got - slow)[10:-10].max() < 0.02


def test_zero_changes_nothing_and_an_endless_driver_is_read_as_needed():
    raw = codes(4)
    np.testing.assert_array_equal(np.stack(list(smooth(raw, 0))), raw)
    read = itertools.count()
    endless = (code for code in itertools.cycle(raw) if next(read) is not None)
    assert len(list(itertools.islice(smooth(endless, 1.0), 5))) == 5
    assert next(read) == 5 + 3


@pytest.mark.parametrize("sigma", [-1, float("nan"), float("inf")])
def test_a_sigma_that_means_nothing_is_refused(sigma):
    with pytest.raises(ValueError, match="must be a number of frames"):
        smooth(codes(2), sigma)
