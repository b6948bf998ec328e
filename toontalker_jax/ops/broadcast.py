"""Small arrays next to large ones, with gradients that are summed in float32."""

import jax
import jax.numpy as jnp


def spread(small: jax.Array, like: jax.Array) -> jax.Array:
    """`small`, which broadcasts against `like`, in the shape and dtype of `like`.

    Broadcast first and cast afterwards: the gradient of `small`, a sum over what it was spread to, is then taken in its
    own dtype. Cast first, in a bfloat16 network thousands of pixels would be added up in bfloat16.
    """
    return jnp.broadcast_to(small, like.shape).astype(like.dtype)
