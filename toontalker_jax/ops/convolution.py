"""Convolution of NHWC maps with kernels [k, k, I, O], and gradients of any order that are fast on a CPU, too.

The three maps below are linear in both arguments, and the gradient of each is made of the other two. On a CPU they are
written as XLA runs them fast: JAX's own gradients leave it to XLA to exchange axes and to turn kernels round, which it
does outside of loops and conditionals only (inside, they took 4 to 16 times as long), and with many channels a weight
gradient is one matrix product a tap, two to four times faster than the convolution. A 1×1 convolution is one product.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

_MANY = 32 * 32  # channels in times channels out, from which on products pay; below they take longer to compile
_FEW = 4  # channels out, up to which a product has little to do for what it reads
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class _Form(NamedTuple):
    """What does not depend on the numbers."""

    height: int  # of the input
    width: int
    kernel: int  # its side
    stride: int
    pad: int  # zeros before the first sample, and for stride 1 behind the last one


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """x [N, H, W, I], kernel [k, k, I, O] → [N, H', W', O] in the dtype of `x`.

    Args:
      stride: 1 with the padding "SAME", any with "VALID".
      padding: "SAME" (k is odd) or "VALID".
    """
    kernel = kernel.astype(x.dtype)
    if kernel.shape[0] == 1 and stride == 1:
        return _to_few(x, kernel[0, 0]) if kernel.shape[3] <= _FEW else x @ kernel[0, 0]
    size = kernel.shape[0]
    return _convolve(x, kernel, _Form(*x.shape[1:3], size, stride, size // 2 if padding == "SAME" else 0))


@jax.custom_vjp
def _to_few(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [N, H, W, I] times kernel [I, O]: like `x @ kernel`, but on a CPU the kernel's gradient comes from sums.

    For a product XLA would exchange the axes of x there, and take half as long again.
    """
    return x @ kernel


def _to_few_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept

    def by_sums(x: jax.Array, gradient: jax.Array) -> jax.Array:
        gradient = gradient.astype(jnp.float32)  # and with it the sums, a row of the map after the other
        one = [(x * gradient[..., o, None]).sum(1).sum((0, 1)) for o in range(gradient.shape[-1])]
        return jnp.stack(one, axis=1).astype(x.dtype)

    def by_product(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jnp.einsum("nhwi,nhwo->io", x, gradient)

    return gradient @ kernel.T, jax.lax.platform_dependent(x, gradient, cpu=by_sums, default=by_product)


_to_few.defvjp(lambda x, kernel: (_to_few(x, kernel), (x, kernel)), _to_few_backward)


def _plain(x: jax.Array, kernel: jax.Array, form: _Form) -> jax.Array:
    padding = ((form.pad, form.pad),) * 2
    return jax.lax.conv_general_dilated(x, kernel, (form.stride,) * 2, padding, dimension_numbers=_DIMENSIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, form: _Form) -> jax.Array:
    return _plain(x, kernel, form)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _input_gradient(gradient: jax.Array, kernel: jax.Array, form: _Form) -> jax.Array:
    """gradient [N, H', W', O], kernel [k, k, I, O] → [N, H, W, I]: `_convolve` transposed."""

    def on_cpu(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        before, padding = form.kernel - 1 - form.pad, []
        for size, out in zip((form.height, form.width), gradient.shape[1:3], strict=True):
            padding.append((before, size - (form.stride * (out - 1) + 1) - before + form.kernel - 1))
        turned = kernel[::-1, ::-1].swapaxes(2, 3)
        return jax.lax.conv_general_dilated(
            gradient, turned, (1, 1), padding, lhs_dilation=(form.stride,) * 2, dimension_numbers=_DIMENSIONS
        )

    def elsewhere(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        x = jax.ShapeDtypeStruct((gradient.shape[0], form.height, form.width, kernel.shape[2]), gradient.dtype)
        return jax.linear_transpose(lambda x: _plain(x, kernel, form), x)(gradient)[0]

    return jax.lax.platform_dependent(gradient, kernel, cpu=on_cpu, default=elsewhere)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: jax.Array, gradient: jax.Array, form: _Form) -> jax.Array:
    """x [N, H, W, I], gradient [N, H', W', O] → [k, k, I, O]: the other half of `_convolve`'s gradient."""

    def by_products(x: jax.Array, gradient: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (form.pad, form.pad), (form.pad, form.pad), (0, 0)))
        height, width = (form.stride * (side - 1) + 1 for side in gradient.shape[1:3])

        def tap(a: int, b: int) -> jax.Array:
            part = x[:, a : a + height : form.stride, b : b + width : form.stride]
            return jnp.einsum("nhwi,nhwo->io", part, gradient)

        return jnp.stack([jnp.stack([tap(a, b) for b in range(form.kernel)]) for a in range(form.kernel)])

    def by_convolution(x: jax.Array, gradient: jax.Array) -> jax.Array:
        """Channels are the rows, rows the channels, and the gradient is the kernel."""
        padding = []
        for size, out in zip((form.height, form.width), gradient.shape[1:3], strict=True):
            padding.append((form.pad, form.kernel - 1 + form.stride * (out - 1) + 1 - size - form.pad))
        x, gradient = x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
        found = jax.lax.conv_general_dilated(
            x, gradient, (1, 1), padding, rhs_dilation=(form.stride,) * 2, dimension_numbers=_DIMENSIONS
        )
        return found.transpose(1, 2, 0, 3)

    def elsewhere(x: jax.Array, gradient: jax.Array) -> jax.Array:
        shape = (form.kernel, form.kernel, x.shape[3], gradient.shape[3])
        kernel = jax.ShapeDtypeStruct(shape, x.dtype)
        return jax.linear_transpose(lambda kernel: _plain(x, kernel, form), kernel)(gradient)[0]

    on_cpu = by_products if x.shape[3] * gradient.shape[3] >= _MANY else by_convolution
    return jax.lax.platform_dependent(x, gradient, cpu=on_cpu, default=elsewhere)


_convolve.defvjp(
    lambda x, kernel, form: (_convolve(x, kernel, form), (x, kernel)),
    lambda form, kept, out: (_input_gradient(out, kept[1], form), _kernel_gradient(kept[0], out, form)),
)
_input_gradient.defvjp(
    lambda gradient, kernel, form: (_input_gradient(gradient, kernel, form), (gradient, kernel)),
    lambda form, kept, out: (_convolve(out, kept[1], form), _kernel_gradient(out, kept[0], form)),
)
_kernel_gradient.defvjp(
    lambda x, gradient, form: (_kernel_gradient(x, gradient, form), (x, gradient)),
    lambda form, kept, out: (_input_gradient(kept[1], out, form), _convolve(kept[0], out, form)),
)
