"""What the options of `ModelConfig` that only change the initial weights promise."""

import jax
import numpy as np
from flax import nnx

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.motion import absolute
from toontalker_jax.models.toontalker import ToonTalker

TINY = {"image_size": 64, "width": 16, "motion_slots": 2, "heads": 2, "channel_base": 256, "channel_cap": 16}


def network(**changes):
    return ToonTalker(ModelConfig(**TINY, **changes), ("real",), rngs=nnx.Rngs(0))


def test_mirrored_queries_start_without_motion_between_equal_pictures():
    pictures = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3), minval=-1)
    codes = network(mirrored_queries=True).motion_codes("real", pictures)
    w = absolute(codes.source_to_reference, codes.reference_to_driving)
    np.testing.assert_allclose(w, 0, atol=1e-5)  # float32 rounding: another program computes each sum
    moved = absolute(codes.source_to_reference[:1], codes.reference_to_driving[1:])
    assert np.abs(moved).max() > 1e-3


def test_mirrored_queries_share_no_array():
    model = network(mirrored_queries=True)
    before = np.asarray(model.driving_query.norm3.scale[...])
    model.source_query.norm3.scale[...] = jax.numpy.zeros(16)
    np.testing.assert_array_equal(model.driving_query.norm3.scale[...], before)


def test_descriptor_init_scale_scales_the_descriptor():
    picture = jax.random.uniform(jax.random.key(0), (1, 64, 64, 3), minval=-1)
    one, ten = (network(descriptor_init_scale=s).domains["real"].motion_encoder(picture) for s in (1.0, 10.0))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-4, atol=1e-5)
