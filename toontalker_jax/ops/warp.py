"""Bilinear sampling of feature maps at given positions (torch's `grid_sample`, zero padding)."""

import jax
import jax.numpy as jnp
import numpy as np

from toontalker_jax.ops.bilinear import bilinear


def warp(features: jax.Array, offset: jax.Array, *, align_corners: bool) -> jax.Array:
    """Sample every pixel of a square map `offset` away from where the identity grid linspace(-1, 1, S) puts it.

    Equals `grid_sample` at identity grid + offset, with half the rounding: the identity's share of the positions, in
    pixels, is exact.

    Args:
      features: [N, S, S, C], or [1, S, S, C] to sample one map for the whole batch.
      offset: [N, S, S, 2] (x, y), float32; 2 is the map's side.
      align_corners: as in `grid_sample`. With False the identity grid, whose ends are pixel centres, and the sampler
        disagree by up to half a pixel, as in the released network.

    Returns:
      [N, S, S, C] in the dtype of `features`.
    """
    size = offset.shape[1]
    line = np.arange(size) if align_corners else np.arange(size) * (size / (size - 1)) - 0.5
    y, x = (axis.astype(np.float32) for axis in np.meshgrid(line, line, indexing="ij"))
    half = (size - align_corners) / 2
    return bilinear(features, x + offset[..., 0] * half, y + offset[..., 1] * half)


def grid_sample(features: jax.Array, grid: jax.Array, *, align_corners: bool) -> jax.Array:
    """Sample `features` bilinearly; outside the map everything is zero.

    Args:
      features: [N, H, W, C], or [1, H, W, C] to sample one map for the whole batch.
      grid: [N, h, w, 2] positions (x, y), float32; -1 and 1 are the map's borders.
      align_corners: True puts -1 and 1 on the centres of the outermost pixels, False on their outer edges.

    Returns:
      [N, h, w, C] in the dtype of `features`; positions are float32.
    """
    height, width = features.shape[1:3]
    x, y = _to_pixels(grid[..., 0], width, align_corners), _to_pixels(grid[..., 1], height, align_corners)
    return bilinear(features, x, y)


def _to_pixels(position: jax.Array, size: int, align_corners: bool) -> jax.Array:
    position = position.astype(jnp.float32)
    return (position + 1) * (0.5 * (size - 1)) if align_corners else ((position + 1) * size - 1) * 0.5
