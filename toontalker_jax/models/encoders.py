"""Appearance encoder E_a and motion encoder E_m: the same pyramid of residual blocks."""

import jax
from flax import nnx

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.layers import ActivatedConv, EqualConv, ResidualBlock, rematerialized


class AppearanceEncoder(nnx.Module):
    """1×1 convolution, then one residual block an octave down to 4×4."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.first = ActivatedConv(3, config.channels(config.image_size), 1, rngs=rngs)
        self.blocks = nnx.List(
            ResidualBlock(config.channels(r), config.channels(r // 2), rngs=rngs) for r in config.resolutions[:-1]
        )
        self.dtype, self.remat = config.compute_dtype, config.remat

    def __call__(self, image: jax.Array) -> dict[int, jax.Array]:
        """image [N, S, S, 3] in [-1, 1] → {resolution: [N, r, r, channels(r)]} for r = S, S/2, … 4."""
        x = self.first(image.astype(self.dtype))
        maps = {x.shape[1]: x}
        for block in self.blocks:
            x = rematerialized(self.remat, block)(x)
            maps[x.shape[1]] = x
        return maps


class MotionEncoder(nnx.Module):
    """The same pyramid, then a 4×4 convolution without bias: the motion descriptor F."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.pyramid = AppearanceEncoder(config, rngs=rngs)
        self.last = EqualConv(config.channels(4), config.width, 4, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        """image [N, S, S, 3] in [-1, 1] → F [N, d], float32."""
        x = self.last(self.pyramid(image)[4], padding="VALID")  # [N, 1, 1, d]
        return x[:, 0, 0, :].astype("float32")
