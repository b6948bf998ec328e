"""Blur, down- and up-sampling with StyleGAN2's separable [1, 3, 3, 1] filter (`reference.md`, building blocks).

Everything is written as shifted adds along one axis at a time: on CPU a depthwise convolution of the same
function is more than ten times slower, forward and backward.
"""

import jax
import jax.numpy as jnp

TAPS = (1.0, 3.0, 3.0, 1.0)  # divided by 8 they sum to 1


def _shifted(x: jax.Array, axis: int, start: int, length: int) -> jax.Array:
    """x[start : start + length] along `axis`, zeros outside."""
    size = x.shape[axis]
    before, after = max(0, -start), max(0, start + length - size)
    x = jax.lax.slice_in_dim(x, max(0, start), min(size, start + length), axis=axis)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths) if before or after else x


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    """even[0], odd[0], even[1], odd[1], … along `axis`."""
    shape = list(even.shape)
    shape[axis] *= 2
    return jnp.stack([even, odd], axis=axis + 1).reshape(shape)


def blur(x: jax.Array, pad: tuple[int, int], stride: int = 1) -> jax.Array:
    """Low-pass filter both image axes, optionally keeping every `stride`-th sample.

    Args:
      x: [N, H, W, C].
      pad: zeros before and after each axis, as in the reference's `upfirdn2d`.
      stride: 1 or 2.

    Returns:
      [N, (H + sum(pad) - 4) // stride + 1, …, C], the gain is 1.
    """
    for axis in (1, 2):
        length = x.shape[axis] + sum(pad) - 3
        taps = [_shifted(x, axis, k - pad[0], length) * (tap / 8) for k, tap in enumerate(TAPS)]
        x = sum(taps[1:], taps[0])
        if stride > 1:
            x = jax.lax.slice_in_dim(x, 0, length, stride, axis=axis)
    return x


def upsample(x: jax.Array) -> jax.Array:
    """Double both image axes: zero insertion, pad (2, 1), filter with gain 4. [N, H, W, C] → [N, 2H, 2W, C].

    Per axis: y[2i] = (x[i-1] + 3 x[i]) / 4 and y[2i+1] = (3 x[i] + x[i+1]) / 4, zeros outside.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        even = 0.25 * _shifted(x, axis, -1, size) + 0.75 * x
        odd = 0.75 * x + 0.25 * _shifted(x, axis, 1, size)
        x = _interleave(even, odd, axis)
    return x


def upsample_conv3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed 3×3 convolution with stride 2, then blur with pad (1, 1) and gain 4.

    One matrix product a tap at the low resolution; the even and odd phases of the transposed convolution are never
    interleaved before the blur has combined them. `lhs_dilation` gives the same numbers twenty times slower on CPU.

    Args:
      x: [N, H, W, I].
      kernel: [3, 3, I, O]; out[2i + k] += x[i] · kernel[k], the order of torch's `conv_transpose2d`.

    Returns:
      [N, 2H, 2W, O].
    """
    rows = [_transposed_blur(taps, axis=2) for taps in _taps(x, kernel)]
    return _transposed_blur(rows, axis=1)


@jax.custom_vjp
def _taps(x: jax.Array, kernel: jax.Array) -> list[list[jax.Array]]:
    """x [N, H, W, I] times each tap of kernel [3, 3, I, O].

    The gradient by a tap has its shape. JAX's own is [O, I], to be turned round, for which XLA exchanges the axes of x
    on a CPU: both passes together took half as long again.
    """
    return [[x @ kernel[a, b] for b in range(3)] for a in range(3)]


def _taps_backward(kept: tuple[jax.Array, jax.Array], gradients: list[list[jax.Array]]) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    by_x = sum(gradients[a][b] @ kernel[a, b].T for a in range(3) for b in range(3))
    by_tap = [jnp.stack([jnp.einsum("nhwi,nhwo->io", x, gradient) for gradient in row]) for row in gradients]
    return by_x, jnp.stack(by_tap)


_taps.defvjp(lambda x, kernel: (_taps(x, kernel), (x, kernel)), _taps_backward)


def _transposed_blur(taps: list[jax.Array], axis: int) -> jax.Array:
    """One axis of `upsample_conv3x3`: taps[k] is x times kernel tap k.

    The transposed convolution is y[2i] = taps0[i] + taps2[i-1] (`even`, H + 1 long), y[2i+1] = taps1[i] (`odd`);
    the blur is out[n] = (y[n-1] + 3 y[n] + 3 y[n+1] + y[n+2]) / 4.
    """
    size = taps[0].shape[axis]
    even = _shifted(taps[0], axis, 0, size + 1) + _shifted(taps[2], axis, -1, size + 1)
    odd = taps[1]
    even_now, even_next = _shifted(even, axis, 0, size), _shifted(even, axis, 1, size)
    out_even = 0.25 * _shifted(odd, axis, -1, size) + 0.75 * (even_now + odd) + 0.25 * even_next
    out_odd = 0.25 * even_now + 0.75 * (odd + even_next) + 0.25 * _shifted(odd, axis, 1, size)
    return _interleave(out_even, out_odd, axis)
