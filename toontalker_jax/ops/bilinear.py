"""Bilinear samples of feature maps at positions in pixels, zero outside, with a gradient for CPUs."""

import jax
import jax.numpy as jnp
import numpy as np

from toontalker_jax.ops.broadcast import spread

_FEW = 32  # channels, below which a step of the loop costs more than what it does


def bilinear(features: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """features [N or 1, H, W, C] at the positions x, y [N, h, w] (float32, pixels) → [N, h, w, C], in their dtype.

    On CPU devices the gradient is a loop, and there is reverse-mode differentiation alone. Several have to be the mesh
    that `jax.sharding.use_abstract_mesh` tells of, split over all of which the rows lie.
    """
    if not _loops(features, x):
        return _plain(features, x, y)
    return jax.lax.platform_dependent(features, x, y, cpu=with_loop, default=_plain)


def _loops(features: jax.Array, x: jax.Array) -> bool:
    if jax.default_backend() != "cpu" or features.shape[-1] < _FEW or min(features.shape[1:3]) < 2:
        return False
    # Were it not known which rows lie on which device, the loop's arrays would be sent to all of them.
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return mesh.size == 1 or jax.device_count() == 1
    return features.shape[0] == x.shape[0] and x.shape[0] % mesh.size == 0


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
def _loop(features: jax.Array, x: jax.Array, y: jax.Array, gradient: jax.Array):
    """Gradients of features, x and y from that of the samples; on several devices each goes over its own rows."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _loop_over(features, x, y, gradient)
    rows = jax.sharding.PartitionSpec(mesh.axis_names)
    by_device = jax.shard_map(_loop_over, in_specs=rows, out_specs=rows, check_vma=False)
    return by_device(features, x, y, gradient)


def _loop_over(features: jax.Array, x: jax.Array, y: jax.Array, gradient: jax.Array):
    """`_loop` on one device, position by position.

    XLA's CPU compiler makes a few small pieces of code of a step, which reads and writes the 2 × 2 × C around a
    position. The gradient that JAX derives goes through the map once for each neighbour, and through arrays as large as
    the map in between.
    """
    maps, height, width, channels = features.shape
    column, wx, slope_x, inside_x = _axis(x.ravel(), width)
    row, wy, slope_y, inside_y = _axis(y.ravel(), height)
    if maps > 1:
        row = (row.reshape(maps, -1) + np.arange(maps, dtype=np.int32)[:, None] * height).ravel()
    rows = features.reshape(maps * height, width, channels)
    weights = (wy[:, :, None] * wx[:, None, :])[..., None]
    gradients = gradient.reshape(-1, 1, channels)
    inside = jnp.float32(inside_x & inside_y)

    def at(array: jax.Array, i: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(array, i, keepdims=False).astype(jnp.float32)

    def step(i: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        d_rows, products = sums
        corner, window = (row[i], column[i], 0), (2, 2, channels)
        around = jax.lax.dynamic_slice(rows, corner, window).astype(jnp.float32)
        # Less one of them, where the slopes' sum is 0: sums of small numbers have little rounding.
        around -= inside[i] * around[:1, :1]
        product = at(gradients, i) @ around.reshape(4, channels).T
        share = jax.lax.dynamic_slice(d_rows, corner, window) + at(weights, i) * at(gradients, i)
        return (
            jax.lax.dynamic_update_slice(d_rows, share, corner),
            jax.lax.dynamic_update_slice(products, product, (i, 0)),
        )

    start = jnp.zeros(rows.shape, jnp.float32), jnp.zeros((x.size, 4), jnp.float32)
    d_rows, products = jax.lax.fori_loop(0, x.size, step, start)
    products = products.reshape(-1, 2, 2)
    d_x = (products * wy[:, :, None] * slope_x[:, None, :]).sum(axis=(1, 2)).reshape(x.shape)
    d_y = (products * slope_y[:, :, None] * wx[:, None, :]).sum(axis=(1, 2)).reshape(y.shape)
    return d_rows.reshape(features.shape).astype(features.dtype), d_x, d_y


def _axis(position: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Along one axis of `size` >= 2 pixels, for positions [P]: the first of the two pixels of a window that lies in the
    map, [P]; the weights of both and their slopes, [P, 2], 0 for a pixel that is no neighbour; whether both are, [P].
    """
    before = jnp.floor(position)
    first = jnp.clip(before, 0, size - 2)
    pixels = first[:, None] + np.arange(2, dtype=np.float32)
    slopes = jnp.float32(pixels == before[:, None] + 1) - jnp.float32(pixels == before[:, None])
    weights = jnp.abs(slopes) * (1 - jnp.abs(position[:, None] - pixels))
    return first.astype(jnp.int32), weights, slopes, first == before


def _second_gradient(inputs: tuple[jax.Array, ...], of_gradients: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Of `_loop`: JAX's, of the gradient that it derives. (Through the loop it would keep every step's arrays.)"""

    def derived(features: jax.Array, x: jax.Array, y: jax.Array, gradient: jax.Array):
        return jax.vjp(_plain, features, x, y)[1](gradient)

    return jax.vjp(derived, *inputs)[1](of_gradients)


with_loop.defvjp(lambda *inputs: (_plain(*inputs), inputs), lambda inputs, gradient: _loop(*inputs, gradient))
_loop.defvjp(lambda *inputs: (_loop(*inputs), inputs), _second_gradient)
