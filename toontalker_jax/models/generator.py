"""Generator G: a StyleGAN2-like pyramid that warps the source's appearance maps (`reference.md`, generator)."""

import jax
import jax.numpy as jnp
from flax import nnx

from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.layers import (
    ActivatedConv,
    ModulatedConv,
    PlainConv,
    StyledConv,
    normal,
    rematerialized,
    zeros,
)
from toontalker_jax.ops.broadcast import spread
from toontalker_jax.ops.resample import upsample
from toontalker_jax.ops.warp import warp


class FlowHead(nnx.Module):
    """Modulated 1×1 convolution without demodulation to (offset x, offset y, mask), before tanh and sigmoid."""

    def __init__(self, channels: int, config: ModelConfig, *, mask_bias: float = 0.0, rngs: nnx.Rngs):
        self.conv = ModulatedConv(
            channels, 3, 1, config.width, demodulate=False, init_scale=config.flow_init_scale, rngs=rngs
        )
        self.bias = nnx.Param(jnp.array([0.0, 0.0, mask_bias], jnp.float32))

    def __call__(self, h: jax.Array, style: jax.Array, previous: jax.Array | None) -> jax.Array:
        """h [N, r, r, C], previous [N, r/2, r/2, 3] → [N, r, r, 3], float32."""
        flow = self.conv(h, style).astype(jnp.float32) + self.bias[...]
        return flow if previous is None else flow + upsample(previous)


class RGBHead(nnx.Module):
    """Activated 1×1 convolution to RGB, plus a second bias, plus the previous RGB up-sampled."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.conv = ActivatedConv(channels, 3, 1, rngs=rngs)
        self.bias = zeros(3)

    def __call__(self, x: jax.Array, previous: jax.Array | None) -> jax.Array:
        """x [N, r, r, C], previous [N, r/2, r/2, 3] → [N, r, r, 3], float32."""
        rgb = self.conv(x).astype(jnp.float32) + self.bias[...]
        return rgb if previous is None else rgb + upsample(previous)


class SFT(nnx.Module):
    """Spatial feature transform: out = x + (x · scale(x, s) + shift(x, s))."""

    def __init__(self, channels: int, style_width: int, *, rngs: nnx.Rngs):
        self.scale1 = StyledConv(channels, channels, style_width, rngs=rngs)
        self.scale2 = PlainConv(channels, channels, rngs=rngs)
        self.shift1 = StyledConv(channels, channels, style_width, rngs=rngs)
        self.shift2 = PlainConv(channels, channels, rngs=rngs)

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        scale = self.scale2(jax.nn.leaky_relu(self.scale1(x, style), 0.2))
        shift = self.shift2(jax.nn.leaky_relu(self.shift1(x, style), 0.2))
        return x + (x * scale + shift)


class GeneratorStage(nnx.Module):
    """One resolution: up-sample, predict the flow, warp the appearance map, blend, add to the picture."""

    def __init__(self, resolution: int, config: ModelConfig, *, rngs: nnx.Rngs):
        channels, width = config.channels(resolution), config.width
        self.up = StyledConv(config.channels(resolution // 2), channels, width, upsample=True, rngs=rngs)
        self.same = StyledConv(channels, channels, width, rngs=rngs)
        mask_bias = config.mask_init_bias if resolution == 8 else 0.0  # later heads add to the first one's output
        self.to_flow = FlowHead(channels, config, mask_bias=mask_bias, rngs=rngs)
        self.to_rgb = RGBHead(channels, rngs=rngs)
        self.sft = SFT(channels, width, rngs=rngs) if config.has_sft(resolution) else None
        self.align_corners = config.align_corners

    def __call__(
        self,
        h: jax.Array,
        styles: tuple[jax.Array, jax.Array, jax.Array],
        appearance: jax.Array,
        flow: jax.Array | None,
        rgb: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """h [N, r/2, r/2, C'], styles s_i, s_i+1, s_i+2 [N, d], appearance [N or 1, r, r, C] → h, flow, rgb."""
        h = self.same(self.up(h, styles[0]), styles[1])
        flow = self.to_flow(h, styles[2], flow)
        mask = spread(jax.nn.sigmoid(flow[..., 2:]), h)
        warped = warp(appearance, jnp.tanh(flow[..., :2]), align_corners=self.align_corners) * mask
        blended = warped + h * (1 - mask)
        if self.sft is not None:
            # As released: the blended map itself, not the mask, weights h here. Nothing reads the last stage's blend.
            warped = self.sft(warped, styles[2])
            blended = warped + h * (1 - blended)
        return blended, flow, self.to_rgb(warped, rgb)


class GeneratorOutput(nnx.Pytree):
    """image [N, S, S, 3], not clamped; flows: the raw [N, r, r, 3] of every stage, r = 8, 16, … S. float32."""

    def __init__(self, image: jax.Array, flows: tuple[jax.Array, ...]):
        self.image = nnx.data(image)
        self.flows = nnx.data(flows)


class Generator(nnx.Module):
    """From style vectors and appearance maps to a picture."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.constant = normal(rngs, (4, 4, config.channels(4)))
        self.first = StyledConv(config.channels(4), config.channels(4), config.width, rngs=rngs)
        self.stages = nnx.List(GeneratorStage(8 << j, config, rngs=rngs) for j in range(config.stages))
        self.dtype, self.remat = config.compute_dtype, config.remat

    def __call__(self, styles: jax.Array, maps: dict[int, jax.Array]) -> GeneratorOutput:
        """styles [N, n, d], maps {resolution: [N or 1, r, r, C]}."""
        constant = self.constant[...]
        h = jnp.broadcast_to(constant, (styles.shape[0], *constant.shape)).astype(self.dtype)  # as `spread`
        h = self.first(h, styles[:, 0])
        rgb, flows = None, []
        for j, stage in enumerate(self.stages):
            i = 2 * j + 1
            previous = flows[-1] if flows else None
            three = styles[:, i], styles[:, i + 1], styles[:, i + 2]
            h, flow, rgb = rematerialized(self.remat, stage)(h, three, maps[8 << j], previous, rgb)
            flows.append(flow)
        return GeneratorOutput(rgb, tuple(flows))
