"""What the machine can do: FLOP/s of large convolutions and matrix products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from scripts.benchmarks.clock import seconds
from toontalker_jax.training.sharding import Layout, make_mesh

# Image side, channels in and out: 3×3 layers large enough to show what the machine can do.
CONVOLUTIONS = ((256, 64, 64), (128, 128, 128), (64, 256, 256), (32, 512, 512))
_TRIES = 3  # of which the fastest counts


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def best_rate(rows: int, side: int, dtype: str, layout: Layout, back_to_back: int = 1) -> Callable[[], float]:
    """A function that measures: FLOP/s of the best of `CONVOLUTIONS` and of a square product, all devices at it.

    Args:
      rows: of the convolutions' batch, split over the devices. Kernels are on each.
      side: of the matrix product's second factor; its first has as many rows a device. 0: no product.
      back_to_back: calls sent to the devices at once.
    """

    def ones(shape: tuple[int, ...], where: NamedSharding) -> jax.Array:
        return jax.jit(lambda: jnp.ones(shape, dtype), out_shardings=where)()

    programs = []
    for size, inputs, outputs in CONVOLUTIONS:
        arguments = ones((rows, size, size, inputs), layout.rows), ones((3, 3, inputs, outputs), layout.whole)
        programs.append((jax.jit(convolve), arguments, 18 * rows * size**2 * inputs * outputs))
    if side:
        tall = side * layout.mesh.size
        arguments = ones((tall, side), layout.rows), ones((side, side), layout.whole)
        programs.append((jax.jit(jnp.matmul), arguments, 2 * tall * side**2))
    for function, arguments, _ in programs:
        jax.block_until_ready(function(*arguments))

    def rate(function: Callable, arguments: tuple[jax.Array, jax.Array], flops: int) -> float:
        tries = [seconds(lambda: [function(*arguments) for _ in range(back_to_back)]) for _ in range(_TRIES)]
        return flops * back_to_back / min(tries)

    return lambda: max(rate(*program) for program in programs)


def convolution_rate(rows: int, dtype: str) -> Callable[[], float]:
    """A function that measures: FLOP/s of the best of `CONVOLUTIONS`, on the first device."""
    return best_rate(rows, 0, dtype, Layout(make_mesh(devices=jax.devices()[:1])))


def peak_rate(dtype: str, layout: Layout) -> Callable[[], float]:
    """A function that measures: FLOP/s of the best convolution or product, all devices of the mesh at it."""
    count = layout.mesh.size
    if jax.default_backend() == "cpu":  # The devices share the cores.
        return best_rate(-(-4 // count) * count, 2048, dtype, layout)
    return best_rate(32 * count, 8192, dtype, layout, back_to_back=10)
