"""Bilinear samples of feature maps at positions in pixels, zero outside, with a gradient for single CPU devices."""

import math

import jax
import jax.numpy as jnp

from toontalker_jax.ops.broadcast import spread

_LANES = 16  # sums over channels are taken in so many parts, next to each other in memory
_FEW = 32  # channels, below which a step of the loop costs more than what it does


def bilinear(features: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """features [N or 1, H, W, C] at the positions x, y [N, h, w] (float32, pixels) → [N, h, w, C], in their dtype."""
    # On several devices the loop's arrays would be sent to all of them; XLA's scatter stays where the rows lie.
    if features.shape[-1] < _FEW or jax.device_count("cpu") > 1:
        return _plain(features, x, y)
    return jax.lax.platform_dependent(features, x, y, cpu=with_loop, default=_plain)


def _plain(features: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    n, height, width, channels = features.shape
    x0, y0 = jnp.floor(x), jnp.floor(y)
    fx, fy = ((p - p0)[..., None] for p, p0 in ((x, x0), (y, y0)))
    # One ring of zeros around the map, in which every position outside ends up, makes the zero padding.
    rows = jnp.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, -1, channels)
    column = [jnp.clip(x0 + i, -1, width).astype(jnp.int32) + 1 for i in (0, 1)]
    row = [(jnp.clip(y0 + i, -1, height).astype(jnp.int32) + 1) * (width + 2) for i in (0, 1)]

    def line(i: int) -> jax.Array:
        left, right = (_take(rows, row[i] + column[j]) for j in (0, 1))
        return left + spread(fx, left) * (right - left)

    # From one corner towards the next: the gradients of positions are then sums of small differences, not differences
    # of large sums, whose rounding was ten times as much.
    above, below = line(0), line(1)
    return above + spread(fy, above) * (below - above)


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """rows [N or 1, H·W, C] at index [N, h, w] → [N, h, w, C].

    Sample by sample: with one flat index over the batch, a batch split over devices would be sent to all of them.
    """
    take = jax.vmap(lambda one, at: one.at[at].get(mode="promise_in_bounds"))
    return take(rows, index) if rows.shape[0] == index.shape[0] else take(rows, index[None])[0]


@jax.custom_vjp
def with_loop(features: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """`bilinear` with `_loop` as its gradient."""
    return _plain(features, x, y)


@jax.custom_vjp
def _loop(features: jax.Array, x: jax.Array, y: jax.Array, out: jax.Array, gradient: jax.Array):
    """Gradients of features, x and y from that of `out`, position by position.

    XLA's CPU compiler makes two small pieces of code of a step, which reads and writes the 2 × 2 × C around a position.
    The gradient that JAX derives goes through the map once for each neighbour, and through arrays as large as the map
    in between.
    """
    maps, height, width, channels = features.shape
    x0, y0 = jnp.floor(x), jnp.floor(y)
    fx, fy = (x - x0).ravel(), (y - y0).ravel()
    # Two rings of zeros around the map: a position outside ends up where all four neighbours are zeros.
    tall, wide, lanes = height + 4, width + 4, math.gcd(channels, _LANES)
    first = jnp.arange(x.shape[0] if maps > 1 else 1)[:, None, None] * tall
    row = (first + jnp.clip(y0, -2, height).astype(jnp.int32) + 2).ravel()
    column = (jnp.clip(x0, -2, width).astype(jnp.int32) + 2).ravel()
    rows = jnp.pad(features, ((0, 0), (2, 2), (2, 2), (0, 0))).reshape(maps * tall, wide, channels)
    weights = jnp.stack([1 - fy, fy], -1)[:, :, None, None] * jnp.stack([1 - fx, fx], -1)[:, None, :, None]
    samples, gradients = (array.reshape(-1, 1, channels) for array in (out, gradient))

    def at(array: jax.Array, i: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(array, i, keepdims=False).astype(jnp.float32)

    def step(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        d_rows, products = sums
        corner, window = (row[i], column[i], 0), (2, 2, channels)
        # Less the sample itself: sums of small numbers, whose differences (below) have little rounding.
        around = jax.lax.dynamic_slice(rows, corner, window).astype(jnp.float32) - at(samples, i)
        product = (at(gradients, i) * around).reshape(4, -1, lanes).sum(axis=1)
        share = jax.lax.dynamic_slice(d_rows, corner, window) + at(weights, i) * at(gradients, i)
        return (
            jax.lax.dynamic_update_slice(d_rows, share, corner),
            jax.lax.dynamic_update_index_in_dim(products, product, i, 0),
        )

    start = jnp.zeros(rows.shape, jnp.float32), jnp.zeros((x.size, 4, lanes), jnp.float32)
    d_rows, products = jax.lax.fori_loop(0, x.size, step, start)
    d_features = d_rows.reshape(maps, tall, wide, channels)[:, 2:-2, 2:-2].astype(features.dtype)
    p = products.sum(axis=-1)
    d_x = (1 - fy) * (p[:, 1] - p[:, 0]) + fy * (p[:, 3] - p[:, 2])
    d_y = (1 - fx) * (p[:, 2] - p[:, 0]) + fx * (p[:, 3] - p[:, 1])
    return d_features, d_x.reshape(x.shape), d_y.reshape(y.shape)


def _with_sample(features: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    out = _plain(features, x, y)
    return out, (features, x, y, out)


def _second_gradient(inputs: tuple[jax.Array, ...], of_gradients: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Of `_loop`: JAX's, of the gradient that it derives. (Through the loop it would keep every step's arrays.)"""

    def derived(features: jax.Array, x: jax.Array, y: jax.Array, out: jax.Array, gradient: jax.Array):
        return jax.vjp(_plain, features, x, y)[1](gradient)

    return jax.vjp(derived, *inputs)[1](of_gradients)


with_loop.defvjp(_with_sample, lambda kept, gradient: _loop(*kept, gradient))
_loop.defvjp(lambda *inputs: (_loop(*inputs), inputs), _second_gradient)
