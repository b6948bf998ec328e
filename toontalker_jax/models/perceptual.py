"""Perceptual loss: VGG19 features at four scales (`reference.md`, training values).

The network's weights come from torchvision's file (`convert/vgg.py`); without them its features are random.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toontalker_jax.models.layers import normal, rematerialized, zeros
from toontalker_jax.ops.checks import check_shape
from toontalker_jax.ops.convolution import convolve

# VGG19 up to relu5_1: convolutions by name with their output channels; a pool stands before each block but the first.
_BLOCKS = (
    (("conv1_1", 64), ("conv1_2", 64)),
    (("conv2_1", 128), ("conv2_2", 128)),
    (("conv3_1", 256), ("conv3_2", 256), ("conv3_3", 256), ("conv3_4", 256)),
    (("conv4_1", 512), ("conv4_2", 512), ("conv4_3", 512), ("conv4_4", 512)),
    (("conv5_1", 512),),
)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_SHRINKS = (1, 2, 4, 8)  # one over the pyramid's scales


class _Conv(nnx.Module):
    """3×3 convolution with bias, He-normal: it keeps random features alive down to the last layer."""

    def __init__(self, channels_in: int, channels_out: int, *, rngs: nnx.Rngs):
        self.kernel = normal(rngs, (3, 3, channels_in, channels_out), math.sqrt(2 / (9 * channels_in)))
        self.bias = zeros(channels_out)

    def __call__(self, x: jax.Array) -> jax.Array:
        return convolve(x, self.kernel[...]) + self.bias[...].astype(x.dtype)


class VGG19(nnx.Module):
    """The first 13 convolutions of VGG19 (12.9 M parameters) in `convs`, "conv1_1" … "conv5_1"; random at first.

    Not to be trained. Hand it to a jitted function as an argument: closed over, its weights become constants of the
    program.
    """

    def __init__(self, *, dtype: str = "float32", rngs: nnx.Rngs):
        layers = [layer for block in _BLOCKS for layer in block]
        inputs = [3, *(channels for _, channels in layers)]
        self.convs = nnx.Dict(
            {name: _Conv(inputs[i], channels, rngs=rngs) for i, (name, channels) in enumerate(layers)}
        )
        self.dtype = jnp.dtype(dtype)

    def __call__(self, image: jax.Array) -> list[jax.Array]:
        """image [N, H, W, 3] in [-1, 1] (clamped) → relu1_1, relu2_1, relu3_1, relu4_1, relu5_1, in `dtype`.

        Map i is [N, H / 2^i, W / 2^i, C], rounded down. The list ends before the first map that would be empty: an 8 px
        image has four maps. (torch raises an error there.)
        """
        x = (jnp.clip(image.astype(jnp.float32), -1, 1) + 1) / 2
        x = ((x - np.float32(_IMAGENET_MEAN)) / np.float32(_IMAGENET_STD)).astype(self.dtype)
        maps = []
        for block in _BLOCKS[: min(x.shape[1:3]).bit_length()]:
            if maps:
                x = pool(x)
            for i, (name, _) in enumerate(block):
                x = jax.nn.relu(self.convs[name](x))
                if i == 0:
                    maps.append(x)
        return maps


def pool(x: jax.Array) -> jax.Array:
    """2×2 maxima. As a reshape: the gradient of XLA's window maximum is slow on a CPU."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _shrink_matrix(size: int, shrink: int) -> np.ndarray:
    """float32 [ceil(size / shrink), size]: Gaussian blur with zero padding, then every `shrink`-th sample.

    sigma = (shrink - 1) / 2, 2·round(4·sigma) + 1 taps that sum to 1 before the borders cut some off.
    """
    sigma = (shrink - 1) / 2
    distance = np.arange(0, size, shrink)[:, None] - np.arange(size)
    taps = np.arange(-round(4 * sigma), round(4 * sigma) + 1)
    weight = np.exp(-(distance**2) / (2 * sigma**2)) * (np.abs(distance) <= taps[-1])
    return (weight / np.exp(-(taps**2) / (2 * sigma**2)).sum()).astype(np.float32)


def image_pyramid(image: jax.Array) -> list[jax.Array]:
    """image [N, H, W, C] → float32 images at scales 1, 1/2, 1/4, 1/8 (sides rounded up)."""
    image = image.astype(jnp.float32)
    levels = [image]
    for shrink in _SHRINKS[1:]:
        rows, columns = (_shrink_matrix(size, shrink) for size in image.shape[1:3])
        level = jnp.einsum("ih,nhwc->niwc", rows, image, precision="highest")
        levels.append(jnp.einsum("jw,niwc->nijc", columns, level, precision="highest"))
    return levels


def perceptual_loss(vgg: VGG19, prediction: jax.Array, target: jax.Array, *, remat: bool = False) -> jax.Array:
    """Mean absolute feature difference of each sample, summed over four scales and five layers; [N], float32.

    prediction, target [N, S, S, 3] in [-1, 1] (values outside are clamped, behind the pyramid's blur). Every layer
    counts 1: LIA's recipe weighs each by 10, which is a weight of 10 for this loss in the config. No gradient reaches
    the target. A map that would be empty is left out: from 128 px up all 20 terms exist; at 64 px there are 19, without
    relu5_1 of the 8 px image. `remat`: a scale's maps are computed again for the gradient instead of kept. Raises
    ValueError if the shapes differ.
    """

    def difference(predicted: jax.Array, wanted: jax.Array) -> jax.Array:
        pairs = zip(vgg(predicted), vgg(wanted), strict=True)
        return sum(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).mean((1, 2, 3)) for a, b in pairs)

    check_shape("prediction", prediction, (None, None, None, 3))
    check_shape("target", target, prediction.shape)
    target = jax.lax.stop_gradient(target)
    scales = zip(image_pyramid(prediction), image_pyramid(target), strict=True)
    return sum(rematerialized(remat, difference)(predicted, wanted) for predicted, wanted in scales)
