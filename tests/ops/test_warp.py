"""`grid_sample` against torch's outputs and gradients (golden/grid_sample.npz), `warp` against `grid_sample`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import reference
from toontalker_jax.ops.warp import grid_sample, warp


@pytest.mark.parametrize(("convention", "align_corners"), [("centres", False), ("corners", True)])
def test_values_and_both_gradients(convention, align_corners):
    with np.load(reference.GOLDEN / "grid_sample.npz") as golden:
        features, cotangent = (jnp.asarray(golden[k].transpose(0, 2, 3, 1)) for k in ("feat", "cotangent"))
        out, pull = jax.vjp(lambda f, g: grid_sample(f, g, align_corners=align_corners), features, golden["grid"])
        d_features, d_grid = pull(cotangent)
        # Measured 1e-6, 1e-6 and 4e-6: float32 rounding of positions up to a dozen pixels.
        np.testing.assert_allclose(out, golden[f"out_{convention}"].transpose(0, 2, 3, 1), atol=5e-6)
        np.testing.assert_allclose(d_features, golden[f"dfeat_{convention}"].transpose(0, 2, 3, 1), atol=5e-6)
        np.testing.assert_allclose(d_grid, golden[f"dgrid_{convention}"], atol=2e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_warp_samples_around_the_identity_grid(align_corners):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 3)), jnp.float32)
    offset = rng.uniform(-1, 1, (2, 8, 8, 2)).astype(np.float32)
    line = np.linspace(-1, 1, 8, dtype=np.float32)
    grid = np.stack(np.meshgrid(line, line), axis=-1) + offset
    expected = grid_sample(x, grid, align_corners=align_corners)
    np.testing.assert_allclose(warp(x, offset, align_corners=align_corners), expected, atol=5e-6)


def test_warp_by_nothing_is_the_identity_with_aligned_corners_only():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 2)), jnp.float32)
    nothing = jnp.zeros((1, 8, 8, 2))
    np.testing.assert_array_equal(warp(x, nothing, align_corners=True), x)
    assert np.abs(np.asarray(warp(x, nothing, align_corners=False) - x)).max() > 0.1


def test_far_outside_is_zero_and_finite():
    x = jnp.ones((1, 8, 8, 2))
    grid = jnp.full((1, 2, 2, 2), 1e6)
    value, gradient = jax.value_and_grad(lambda g: grid_sample(x, g, align_corners=False).sum())(grid)
    assert value == 0 and not np.any(np.asarray(gradient))


def test_one_map_for_a_whole_batch():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 8, 8, 2)), jnp.float32)
    grid = jnp.asarray(rng.uniform(-1, 1, (3, 8, 8, 2)), jnp.float32)
    for sample in (grid_sample, warp):
        together = sample(x, grid, align_corners=True)
        np.testing.assert_array_equal(together, sample(jnp.repeat(x, 3, axis=0), grid, align_corners=True))
