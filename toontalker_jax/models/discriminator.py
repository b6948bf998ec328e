"""StyleGAN2's discriminator, one a domain (`reference.md`, training values)."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from toontalker_jax.models.batches import deinterleave, interleave
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.encoders import AppearanceEncoder
from toontalker_jax.models.layers import ActivatedConv, EqualLinear, activate
from toontalker_jax.ops.broadcast import spread

STD_GROUP = 4  # largest group of the minibatch standard deviation


def minibatch_std(x: jax.Array, group: int | None = None) -> jax.Array:
    """Append one channel: the standard deviation within groups of neighbouring rows, averaged over everything else.

    x [N, H, W, C] → [N, H, W, C + 1]. Groups have `group` rows, by default min(N, 4); N must be a multiple of that.

    Raises:
      ValueError: the batch does not divide into groups.
    """
    n = x.shape[0]
    group = group or min(n, STD_GROUP)
    if n % group:
        raise ValueError(f"a discriminator batch of {n} does not divide into groups of {group}; use a multiple of it.")
    grouped = x.astype(jnp.float32).reshape(n // group, group, *x.shape[1:])
    deviation = jnp.sqrt(grouped.var(axis=1) + 1e-8).mean(axis=(1, 2, 3))  # one number a group
    feature = spread(jnp.repeat(deviation, group)[:, None, None, None], x[..., :1])
    return jnp.concatenate([x, feature], axis=-1)


class Discriminator(nnx.Module):
    """Picture → logit: positive means real."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        channels = config.channels(4)
        self.pyramid = AppearanceEncoder(config, rngs=rngs)
        self.last = ActivatedConv(channels + 1, channels, 3, rngs=rngs)
        self.hidden = EqualLinear(16 * channels, config.width, rngs=rngs)
        self.logit = EqualLinear(config.width, 1, rngs=rngs)

    def __call__(self, image: jax.Array, group: int | None = None) -> jax.Array:
        """image [N, S, S, 3] in [-1, 1] → [N], float32. `group`: see `minibatch_std`."""
        x = self.last(minibatch_std(self.pyramid(image)[4], group))
        x = x.reshape(x.shape[0], -1).astype(jnp.float32)
        return self.logit(activate(self.hidden(x), jnp.zeros(())))[:, 0]

    def both(self, first: jax.Array, second: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The logits of two batches, in one pass: gradients are then sent between devices once, not twice.

        Group by group of the statistic, so that a batch split over devices stays where it is.
        """
        sizes = len(first), len(second)
        common = math.gcd(*sizes)
        group = max(rows for rows in range(1, STD_GROUP + 1) if common % rows == 0)
        blocks = common // group
        return deinterleave(self(interleave((first, second), blocks), group), sizes, blocks)
