"""Which bits arrays hold, so that flipped ones are found when a checkpoint is read: Orbax keeps no checksum of them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils


def digests(tree: Any) -> dict[str, int]:
    """{name: sum of the array's elements, read as unsigned integers of 32 bits or less, modulo 2**32}.

    One flipped bit always changes the sum. It is the same however the array is divided among devices and processes, and
    made on the host at the speed of its memory, without a program to compile. If any array is spread over several
    processes, all of them have to call this.
    """
    arrays = ocp.tree.to_flat_dict(tree, sep="/")
    sums = np.array([_sum_here(array) for array in arrays.values()], np.uint32)
    spread = [isinstance(array, jax.Array) and not array.is_fully_addressable for array in arrays.values()]
    if any(spread):
        sums = np.where(spread, multihost_utils.process_allgather(sums).sum(0, dtype=np.uint32), sums)
    return dict(zip(arrays, sums.tolist(), strict=True))


def check_digests(where: str, tree: Any, wanted: Mapping[str, int]) -> None:
    """Raises OSError if an array is not what `wanted` says; a name that it does not have is not checked."""
    wrong = [name for name, found in digests(tree).items() if wanted.get(name, found) != found]
    if wrong:
        more = f", nor are {len(wrong) - 1} more arrays" if wrong[1:] else ""
        raise OSError(f"{where} is damaged: the bits of {wrong[0]} are not those that were saved{more}.")


def _sum_here(array: Any) -> int:
    """Of those parts that this process is to count, so that each is counted once."""
    if isinstance(array, jax.Array):
        parts = [shard.data for shard in array.addressable_shards if shard.replica_id == 0]
    else:
        parts = [array]
    flat = [np.asarray(part).reshape(-1) for part in parts]
    return sum(int(part.view(f"u{min(part.itemsize, 4)}").sum(dtype=np.uint32)) for part in flat) % 2**32
