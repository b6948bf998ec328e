"""Building blocks with equalised learning rate, shared by encoders, generator and discriminator.

Stored weights are unit-normal; the forward pass multiplies by 1 / sqrt(fan-in) (`reference.md`, building blocks).
Parameters are float32, products run in `dtype`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from toontalker_jax.ops.broadcast import spread
from toontalker_jax.ops.convolution import convolve
from toontalker_jax.ops.product import product
from toontalker_jax.ops.resample import blur, upsample_conv3x3


def activate(x: jax.Array, bias: jax.Array) -> jax.Array:
    """sqrt(2) · leaky_relu(x + bias, 0.2)."""
    return jax.nn.leaky_relu(x + spread(bias, x), 0.2) * math.sqrt(2)


def rematerialized(wanted: bool, block: Callable) -> Callable:
    """`block`, with its insides computed again for the gradient instead of kept, if `wanted`."""
    return jax.checkpoint(lambda *arguments: block(*arguments)) if wanted else block


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], scale: float = 1.0) -> nnx.Param:
    """A float32 parameter drawn from N(0, scale²)."""
    return nnx.Param(scale * jax.random.normal(rngs.params(), shape, jnp.float32))


def zeros(*shape: int) -> nnx.Param:
    return nnx.Param(jnp.zeros(shape, jnp.float32))


class Equalized(nnx.Module):
    """A layer whose kernel [in, out] or [k, k, in, out] works scaled by 1 / sqrt(in · k²).

    `fold(dtype)` does once what else every call does: scales the kernel and casts it. What is left is for inference in
    that dtype only: its parameters are no longer those of a checkpoint.
    """

    folded = False

    def scaled_kernel(self) -> jax.Array:
        kernel = self.kernel[...]
        if self.folded:
            return kernel
        size = kernel.shape[0] if kernel.ndim == 4 else 1
        return kernel * (1 / (size * math.sqrt(kernel.shape[-2])))

    def fold(self, dtype: jax.typing.DTypeLike) -> None:
        self.kernel, self.folded = nnx.Param(self.scaled_kernel().astype(dtype)), True


class EqualLinear(Equalized):
    """x · kernel / sqrt(in) + bias, in float32 also where a GPU or TPU would round the factors. kernel [in, out]."""

    def __init__(self, features_in: int, features_out: int, *, bias_init: float = 0.0, rngs: nnx.Rngs):
        self.kernel = normal(rngs, (features_in, features_out))
        self.bias = nnx.Param(jnp.full((features_out,), bias_init, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x [N, in] → [N, out]."""
        return product(x, self.scaled_kernel()) + self.bias[...]

    def fold(self, dtype: jax.typing.DTypeLike) -> None:
        super().fold(jnp.float32)


class EqualConv(Equalized):
    """Convolution without bias: kernel [k, k, in, out], scaled by 1 / sqrt(in · k²).

    `downsample=True` blurs first and keeps every second sample (`blur` pad (2, 2) for k = 3, (1, 1) for k = 1).
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, *, downsample: bool = False, rngs: nnx.Rngs
    ):
        self.kernel = normal(rngs, (kernel_size, kernel_size, channels_in, channels_out))
        self.downsample = downsample

    def __call__(self, x: jax.Array, padding: str = "SAME") -> jax.Array:
        kernel = self.scaled_kernel()
        if not self.downsample:
            return convolve(x, kernel, padding=padding)
        if kernel.shape[0] == 1:  # a 1×1 convolution reads only the samples that the stride keeps
            return convolve(blur(x, (1, 1), stride=2), kernel)
        return convolve(blur(x, (2, 2)), kernel, stride=2, padding="VALID")


class ActivatedConv(nnx.Module):
    """`EqualConv`, then bias and activation."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel_size: int, *, downsample: bool = False, rngs: nnx.Rngs
    ):
        self.conv = EqualConv(channels_in, channels_out, kernel_size, downsample=downsample, rngs=rngs)
        self.bias = zeros(channels_out)

    def __call__(self, x: jax.Array) -> jax.Array:
        return activate(self.conv(x), self.bias[...])


class ResidualBlock(nnx.Module):
    """Halves the resolution: (conv3×3 → down-sampling conv3×3 + down-sampling 1×1 skip) / sqrt(2)."""

    def __init__(self, channels_in: int, channels_out: int, *, rngs: nnx.Rngs):
        self.conv1 = ActivatedConv(channels_in, channels_in, 3, rngs=rngs)
        self.conv2 = ActivatedConv(channels_in, channels_out, 3, downsample=True, rngs=rngs)
        self.skip = EqualConv(channels_in, channels_out, 1, downsample=True, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return (self.conv2(self.conv1(x)) + self.skip(x)) * (1 / math.sqrt(2))


class PlainConv(nnx.Module):
    """3×3 convolution with bias and without equalised rate (torch's `nn.Conv2d` and its uniform initialisation)."""

    def __init__(self, channels_in: int, channels_out: int, *, rngs: nnx.Rngs):
        bound = 1 / math.sqrt(9 * channels_in)
        shape = (3, 3, channels_in, channels_out)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -bound, bound))
        self.bias = nnx.Param(jax.random.uniform(rngs.params(), (channels_out,), jnp.float32, -bound, bound))

    def __call__(self, x: jax.Array) -> jax.Array:
        x = convolve(x, self.kernel[...])
        return x + spread(self.bias[...], x)


class ModulatedConv(Equalized):
    """StyleGAN2's modulated convolution, without per-sample kernels.

    Scaling the input channels of the weight by the style is scaling the input; dividing the weight by its norm over
    (in, k, k) is scaling the output: with w = kernel / sqrt(in · k²), s = modulation(style),

        out_o = conv(x · s, w)_o / sqrt(Σ_i s_i² Σ_k w_iko² + 1e-8).

    Style, modulation and demodulation are float32.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        style_width: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
        init_scale: float = 1.0,
        rngs: nnx.Rngs,
    ):
        self.kernel = normal(rngs, (kernel_size, kernel_size, channels_in, channels_out), init_scale)
        self.modulation = EqualLinear(style_width, channels_in, bias_init=1.0, rngs=rngs)
        self.demodulate = demodulate
        self.upsample = upsample

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        """x [N, H, W, in], style [N, style_width] → [N, H, W, out], or [N, 2H, 2W, out] if `upsample`."""
        kernel = self.scaled_kernel()
        scale = self.modulation(style)  # [N, in]
        x = x * spread(scale[:, None, None, :], x)
        x = upsample_conv3x3(x, kernel.astype(x.dtype)) if self.upsample else convolve(x, kernel)
        if self.demodulate:
            energy = self.energy[...] if self.folded else _energy(kernel)  # [in, out]
            norm = jax.lax.rsqrt(jnp.matmul(jnp.square(scale), energy, precision="highest") + 1e-8)  # [N, out]
            x = x * spread(norm[:, None, None, :], x)
        return x

    def fold(self, dtype: jax.typing.DTypeLike) -> None:
        if not self.folded:
            self.energy = nnx.Param(_energy(self.scaled_kernel()))
        super().fold(dtype)


def _energy(kernel: jax.Array) -> jax.Array:
    return jnp.square(kernel).sum((0, 1))


class StyledConv(nnx.Module):
    """Modulated 3×3 convolution, bias, activation.

    `noise_weight` belongs to the released state dict; the released code never injects noise, so nothing reads it.
    """

    def __init__(
        self, channels_in: int, channels_out: int, style_width: int, *, upsample: bool = False, rngs: nnx.Rngs
    ):
        self.conv = ModulatedConv(channels_in, channels_out, 3, style_width, upsample=upsample, rngs=rngs)
        self.noise_weight = zeros(1)
        self.bias = zeros(channels_out)

    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        return activate(self.conv(x, style), self.bias[...])
