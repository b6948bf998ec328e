"""What the options of `ModelConfig` that only change the initial weights promise."""

import jax
import numpy as np
import pytest
from flax import nnx

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.motion import absolute
from toontalker_jax.models.toontalker import ToonTalker

TINY = {"image_size": 64, "width": 16, "motion_slots": 2, "heads": 2, "channel_base": 256, "channel_cap": 16}


def network(**changes):
    return ToonTalker(ModelConfig(**TINY, **changes), ("real",), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("query", ["transformer", "mlp"])
def test_difference_init_starts_without_motion_between_equal_pictures(query):
    pictures = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    codes = network(difference_init=True, query=query).motion_codes("real", pictures)
    w = absolute(codes.source_to_reference, codes.reference_to_driving)
    np.testing.assert_allclose(w, 0, atol=1e-5)  # float32 rounding: another program computes each sum
    moved = absolute(codes.source_to_reference[:1], codes.reference_to_driving[1:])
    assert np.abs(moved).max() > 1e-3


def test_difference_init_lets_the_motion_alone_through_the_backward_transformer():
    domain = network(difference_init=True).domains["real"]
    w = np.random.default_rng(0).normal(size=(2, 2, 16)).astype(np.float32)
    w -= w.mean(-1, keepdims=True)
    w /= w.std(-1, keepdims=True)  # a layer norm leaves it as it is
    pictures = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    memory = domain.backward_transformer.memory(domain.appearance_encoder(pictures))
    np.testing.assert_allclose(domain.backward_transformer(w, memory), w, atol=1e-4)


def test_difference_init_shares_no_array_between_the_queries():
    model = network(difference_init=True)
    before = np.asarray(model.driving_query.norm3.scale[...])
    model.source_query.norm3.scale[...] = jax.numpy.zeros(16)
    np.testing.assert_array_equal(model.driving_query.norm3.scale[...], before)
