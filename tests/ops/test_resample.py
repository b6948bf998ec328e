"""Resampling against its definition, written out with numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import reference
from toontalker_jax.ops.resample import blur, upsample, upsample_conv3x3

RNG = np.random.default_rng(0)


def filtered(x: np.ndarray, pad: tuple[int, int], gain: float) -> np.ndarray:
    """Zero-pad both axes of [H, W], correlate with gain · outer([1, 3, 3, 1]) / 64."""
    kernel = gain * np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    x = np.pad(x, [pad, pad])
    return np.array(
        [[(x[i : i + 4, j : j + 4] * kernel).sum() for j in range(x.shape[1] - 3)] for i in range(x.shape[0] - 3)]
    )


@pytest.mark.parametrize(("pad", "stride"), [((2, 2), 1), ((1, 1), 1), ((1, 1), 2)])
def test_blur(pad, stride):
    x = RNG.normal(size=(8, 6))
    out = blur(jnp.asarray(x[None, :, :, None], jnp.float32), pad, stride)
    np.testing.assert_allclose(out[0, :, :, 0], filtered(x, pad, 1)[::stride, ::stride], atol=1e-6)


def test_upsample_is_the_references():
    with np.load(reference.GOLDEN / "layers.npz") as golden:
        out = upsample(jnp.asarray(golden["x"].transpose(0, 2, 3, 1)))
        np.testing.assert_allclose(out, golden["upsample_out"].transpose(0, 2, 3, 1), atol=1e-6)


def test_upsample_conv_is_a_transposed_convolution_and_a_blur():
    x, kernel = RNG.normal(size=(5, 4)), RNG.normal(size=(3, 3))
    transposed = np.zeros((11, 9))
    for i in range(5):
        for j in range(4):
            transposed[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += x[i, j] * kernel
    out = upsample_conv3x3(
        jnp.asarray(x[None, :, :, None], jnp.float32), jnp.asarray(kernel[:, :, None, None], jnp.float32)
    )
    np.testing.assert_allclose(out[0, :, :, 0], filtered(transposed, (1, 1), 4), atol=1e-5)
