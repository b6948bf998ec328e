"""Learning rates, clipping, factors on parts, and the average of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from toontalker_jax.training.optimizers import follow, learning_rate, make_optimizer

ADAM = {"learning_rate": 2e-3, "warmup_steps": 0, "decay": "none", "beta1": 0.9, "beta2": 0.99, "multipliers": {}}
ADAM |= {"reference_batch": 64, "batch_exponent": 0.0, "clip_norm": 0.0}


@pytest.mark.parametrize(("exponent", "rate"), [(0.0, 2e-3), (0.5, 4e-3), (1.0, 8e-3)])
def test_the_rate_grows_with_the_batch_as_told_after_the_warm_up(exponent, rate):
    schedule = learning_rate(ADAM | {"batch_exponent": exponent, "warmup_steps": 3}, 100, 256)
    np.testing.assert_allclose([schedule(step) for step in (0, 1, 3, 99)], [rate / 4, rate / 2, rate, rate], rtol=1e-6)


def test_a_cosine_ends_at_nothing():
    schedule = learning_rate(ADAM | {"decay": "cosine"}, 100, 64)
    np.testing.assert_allclose([schedule(step) for step in (0, 50, 100)], [2e-3, 1e-3, 0], atol=1e-9)
    late = learning_rate(ADAM | {"decay": "cosine", "warmup_steps": 20}, 100, 64)
    np.testing.assert_allclose([late(step) for step in (20, 60, 100)], [2e-3, 1e-3, 0], atol=1e-9)


def test_a_gradient_is_clipped_by_its_whole_norm():
    params = {"a": jnp.zeros(3), "b": jnp.zeros(1)}
    gradient = {"a": jnp.array([3.0, 0, 0]), "b": jnp.array([4.0])}
    adam = make_optimizer(ADAM | {"clip_norm": 1.0}, 100, 64)
    moments = jax.tree.leaves(adam.update(gradient, adam.init(params))[1])
    first = next(m for m in moments if m.shape == (3,))  # Adam's mean: a tenth of what it was given
    np.testing.assert_allclose(first, [0.06, 0, 0], rtol=1e-5)


def test_without_beta1_adam_is_the_same_and_stores_no_first_moment():
    lean, whole = make_optimizer(ADAM | {"beta1": 0.0}, 100, 64), optax.adam(2e-3, b1=0.0, b2=0.99)
    params = {"w": jnp.zeros(1000)}
    states = [lean.init(params), whole.init(params)]
    assert sum(leaf.size for leaf in jax.tree.leaves(states[0])) < 1100
    random = np.random.default_rng(0)
    for _ in range(5):
        gradient = {"w": jnp.asarray(random.standard_normal(1000) * 10.0 ** random.uniform(-8, 1, 1000), jnp.float32)}
        (one, states[0]), (other, states[1]) = lean.update(gradient, states[0]), whole.update(gradient, states[1])
        np.testing.assert_allclose(one["w"], other["w"], atol=1e-6 * 2e-3)


def test_the_average_forgets_its_start_and_then_follows_slowly():
    average = {"w": jnp.float32(100.0)}
    for done in range(3):
        average = follow(average, {"w": jnp.float32(1.0)}, jnp.int32(done), 0.999)
    np.testing.assert_allclose(average["w"], 1 + 99 * (1 / 10) * (2 / 11) * (3 / 12), rtol=1e-6)
    late = follow({"w": jnp.float32(0.0)}, {"w": jnp.float32(1.0)}, jnp.int32(10**6), 0.999)
    np.testing.assert_allclose(late["w"], 0.001, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decay": "linear"}, "decay = 'linear'"),
        ({"warmup_steps": 100}, "warmup_steps = 100"),
        ({"warmup_steps": -1}, "warmup_steps = -1"),
        ({"nu": 1}, "'nu'"),
        ({"beta1": 1.0}, "beta1 = 1.0"),
        ({"beta2": -0.5}, "beta2 = -0.5"),
        ({"clip_norm": float("nan")}, "clip_norm = nan"),
        ({"batch_exponent": float("nan")}, "batch_exponent = nan"),
        ({"multipliers": {"generator": -1.0}}, "multipliers.generator = -1"),
        ({"multipliers": {"generator": float("inf")}}, "multipliers.generator = inf"),
    ],
)
def test_a_bad_optimizer_config_is_one_clear_error(changes, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(ADAM | changes, 100, 64)


def test_a_multiplier_scales_the_steps_of_its_part_alone():
    parts = {"motion_encoder": jnp.ones(3), "generator": jnp.ones(3)}
    params = {"domains": {"real": parts}, "source_query": jnp.ones(2)}
    gradient = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    plain, scaled = (make_optimizer(ADAM | {"multipliers": m}, 100, 64) for m in ({}, {"motion_encoder": 5}))
    one, five = (adam.update(gradient, adam.init(params))[0] for adam in (plain, scaled))
    np.testing.assert_allclose(
        five["domains"]["real"].pop("motion_encoder"), 5 * one["domains"]["real"].pop("motion_encoder"), rtol=1e-6
    )
    jax.tree.map(np.testing.assert_array_equal, five, one)


def test_a_multiplier_without_its_part_is_an_error():
    optimizer = make_optimizer(ADAM | {"multipliers": {"brain": 2.0}}, 100, 64)
    with pytest.raises(ValueError, match="brain is none of generator; 1 says"):
        optimizer.init({"generator": jnp.ones(3)})
    states = [
        make_optimizer(ADAM | {"multipliers": factors}, 100, 64).init({"generator": jnp.ones(3)})
        for factors in ({}, {"brain": 1.0})
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)
