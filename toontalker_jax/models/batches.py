"""Several batches in one pass: a network that runs once on all rows compiles and runs faster than batch by batch."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def interleave(batches: Sequence[jax.Array], blocks: int | None = None) -> jax.Array:
    """Arrays [N_i, …] → [sum of N_i, …]: `blocks` times N_0 / blocks rows of the first, N_1 / blocks of the second, ….

    Not one batch behind the other, so that rows that are split over devices stay where they are: while each device has
    whole blocks. By default there are as many as divide all batches. Raises ValueError if `blocks` does not.
    """
    sizes = [len(batch) for batch in batches]
    blocks = _check_blocks(sizes, blocks)
    parts = [batch.reshape(blocks, -1, *batch.shape[1:]) for batch in batches]
    return jnp.concatenate(parts, axis=1).reshape(sum(sizes), *batches[0].shape[1:])


def deinterleave(batch: jax.Array, sizes: Sequence[int], blocks: int | None = None) -> tuple[jax.Array, ...]:
    """[sum of N_i, …] → arrays [N_i, …] of these `sizes`: what `interleave` made one."""
    blocks = _check_blocks(sizes, blocks)
    parts = batch.reshape(blocks, -1, *batch.shape[1:])
    ends = list(itertools.accumulate(size // blocks for size in sizes))
    rows = (parts[:, start:end] for start, end in zip([0, *ends], ends, strict=False))
    return tuple(part.reshape(size, *batch.shape[1:]) for part, size in zip(rows, sizes, strict=True))


def _check_blocks(sizes: Sequence[int], blocks: int | None) -> int:
    most = math.gcd(*sizes)
    if blocks and most % blocks:
        raise ValueError(f"batches of {tuple(sizes)} do not divide into {blocks} blocks.")
    return blocks or most
