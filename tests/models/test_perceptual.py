"""VGG19 and the perceptual loss against torch's numbers (golden/make_perceptual.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.golden.perceptual_recipe import image, weights
from toontalker_jax.convert.vgg import vgg19_from_state_dict
from toontalker_jax.models.perceptual import VGG19, image_pyramid, perceptual_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "perceptual.npz")


features = jax.jit(lambda vgg, x: vgg(x))


@pytest.fixture(scope="module")
def vgg():
    return vgg19_from_state_dict(weights())


@pytest.fixture(scope="module")
def loss_and_gradients(vgg):
    return jax.jit(jax.value_and_grad(lambda *arguments: perceptual_loss(*arguments).mean(), argnums=(1, 2)))


def test_features_match_torch(vgg):
    maps = features(vgg, image(40, 36, 1))
    assert [m.shape[1:] for m in maps] == [(40, 36, 64), (20, 18, 128), (10, 9, 256), (5, 4, 512), (2, 2, 512)]
    for i, found in enumerate(maps):
        # values up to 10, float32 against float64: measured 7e-6
        np.testing.assert_allclose(found[:, ::4, ::4, ::32], GOLDEN[f"relu{i + 1}_1"], rtol=0, atol=2e-5)


def test_pyramid_matches_torch():
    levels = image_pyramid(jnp.asarray(image(40, 36, 1)))
    assert [level.shape for level in levels] == [(1, 40, 36, 3), (1, 20, 18, 3), (1, 10, 9, 3), (1, 5, 5, 3)]
    for i, level in enumerate(levels):
        np.testing.assert_allclose(level[:, ::2, ::2], GOLDEN[f"level_{i}"], rtol=0, atol=5e-7)  # measured 1.2e-7


def test_loss_and_gradient_match_torch(vgg, loss_and_gradients):
    loss, (to_prediction, to_target) = loss_and_gradients(vgg, image(64, 64, 2), image(64, 64, 3))
    assert GOLDEN["terms"].shape == (19,)  # relu5_1 of the 8 px image does not exist
    np.testing.assert_allclose(loss, GOLDEN["loss"], rtol=2e-6)  # measured: equal
    np.testing.assert_allclose(jnp.linalg.norm(to_prediction), GOLDEN["gradient_norm"], rtol=1e-4)  # measured 1e-5
    # The gradient jumps where |a - b|, a ReLU or a maximum has its kink; a few cross it in float32. Measured 0.3 %.
    error = np.linalg.norm(to_prediction[:, ::5, ::5] - GOLDEN["gradient"])
    assert error < 0.01 * np.linalg.norm(GOLDEN["gradient"])
    assert not to_target.any()


def test_equal_images_cost_nothing(vgg, loss_and_gradients):
    loss, _ = loss_and_gradients(vgg, image(64, 64, 2), image(64, 64, 2))
    assert loss < 1e-5  # not 0: the two passes are compiled differently


def test_small_images_lose_the_maps_that_would_be_empty(vgg):
    sizes = (1, 2, 7, 8, 15, 16)
    assert [len(jax.eval_shape(vgg, jnp.zeros((1, size, size, 3)))) for size in sizes] == [1, 2, 3, 4, 4, 5]


def test_bfloat16_convolves_in_bfloat16_and_sums_in_float32():
    half = vgg19_from_state_dict(weights(), dtype="bfloat16")
    for i, found in enumerate(features(half, image(40, 36, 1))):
        assert found.dtype == jnp.bfloat16
        expected = GOLDEN[f"relu{i + 1}_1"]
        assert (
            np.abs(found[:, ::4, ::4, ::32].astype(np.float32) - expected).max() < 0.05 * expected.max()
        )  # measured 0.015
    zeros = jnp.zeros((1, 64, 64, 3), jnp.bfloat16)
    assert jax.eval_shape(perceptual_loss, half, zeros, zeros).dtype == jnp.float32


def test_random_features_stay_alive_to_the_last_layer():
    maps = features(VGG19(rngs=nnx.Rngs(1)), image(40, 36, 1))
    assert all(0.1 < float(m.std()) < 10 for m in maps)


def test_shapes_must_agree(vgg):
    with pytest.raises(ValueError, match=r"target has shape \(1, 32, 64, 3\)"):
        perceptual_loss(vgg, jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 32, 64, 3)))
