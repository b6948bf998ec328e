"""Losses on values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from toontalker_jax import losses


def test_l1():
    assert losses.l1(jnp.array([1.0, -1.0]), jnp.array([0.0, 1.0])) == 1.5


def test_image_gradient_ignores_an_offset_and_sees_edges():
    target = jnp.zeros((1, 8, 8, 3))
    assert losses.image_gradient(target + 0.3, target, scales=3) < 1e-6
    step = target.at[:, :, 4:].set(1.0)  # one vertical edge: 1 of 7, 3 and 1 differences at the scales 1, 1/2, 1/4
    np.testing.assert_allclose(losses.image_gradient(step, target, scales=3), 1 / 7 + 1 / 3 + 1, rtol=1e-6)


def test_change_looks_at_what_moves_and_weighs_every_pair_alike():
    source = jnp.zeros((2, 8, 8, 3))
    target = source.at[0, :2].set(1.0).at[1, 0, 0].set(0.5).at[:, 7].set(0.05)  # much, little, below the threshold
    assert losses.change(source, source, target) == 1
    assert losses.change(target, source, target) == 0
    half = source.at[0, :2].set(0.5).at[1, 0, 0].set(0.5)  # the first pair half of the way, the second all of it
    np.testing.assert_allclose(losses.change(half, source, target), 0.25, rtol=1e-6)
    np.testing.assert_allclose(losses.change(half.at[:, 4:].set(1.0), source, target), 0.25, rtol=1e-6)  # not its place
    unmoved = source + 0.01
    assert losses.change(half, source, unmoved) == 0
    assert jnp.isfinite(jax.grad(losses.change)(half, source, unmoved)).all()


def test_adversarial_is_non_saturating():
    logits = jnp.array([-20.0, 0.0])
    np.testing.assert_allclose(losses.adversarial(logits), (20 + np.log(2)) / 2, rtol=1e-6)
    np.testing.assert_allclose(losses.discriminator(jnp.array([20.0]), jnp.array([-20.0])), 0, atol=1e-6)
    np.testing.assert_allclose(losses.discriminator(jnp.array([0.0]), jnp.array([0.0])), 2 * np.log(2), rtol=1e-6)


def test_analogy_follows_equation_9():
    w_rs, w_ra, w_rb = jnp.full((1, 2, 2), 5.0), jnp.full((1, 2, 2), 1.0), jnp.full((1, 2, 2), 3.0)
    assert losses.analogy(w_rs, w_rs + 2, w_ra, w_rb) == 0  # g moved as b did
    assert losses.analogy(w_rs, w_rs, w_ra, w_rb) == 2  # g did not move
    assert losses.analogy(w_rs, w_rs - 2, w_ra, w_rb) == 4  # g moved the other way
    one = jnp.zeros((1, 2, 2)).at[0, 1, 0].set(4.0)
    assert losses.analogy(w_rs, w_rs + 2 + one, w_ra, w_rb) == 1  # a mean over all entries
