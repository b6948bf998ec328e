"""Pictures as the networks take them."""

import jax
import jax.numpy as jnp


def unit_range(pictures: jax.Array) -> jax.Array:
    """8-bit values x become float32 x / 127.5 - 1, in [-1, 1]; floats stay as they are. Any shape.

    As (2 x - 255) / 255 it rounds once, so that every program, on any number of devices, gets the same bits.
    """
    return (2 * pictures.astype(jnp.float32) - 255) / 255 if pictures.dtype == jnp.uint8 else pictures
