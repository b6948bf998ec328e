"""What several processes have to see alike before they go on."""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from toontalker_jax.checkpoints.format import Mismatch, one_line

T = TypeVar("T")
_SOUND, _DAMAGED, _MISMATCH = range(3)  # a later one in any process decides for all


def check_same(directory: epath.Path, seen: Any) -> None:
    """Returns once every process has told what it sees in `directory`. Raises OSError in each if they differ."""
    if jax.process_count() == 1:
        return
    told = multihost_utils.process_allgather(np.uint32(zlib.crc32(repr(seen).encode())))
    if (told != told[0]).any():
        raise OSError(
            f"the processes see different checkpoints in {directory}, this one {seen}: it has to lie where all of them "
            f"see the same (a shared file system or a bucket); if it does, wait a minute and run the same command again"
        )


def attempt(act: Callable[[], T]) -> tuple[T | None, str]:
    """What `act` returns and "", or why it failed in some process. Raises Mismatch if any process does."""
    outcome, result, error = _SOUND, None, None
    try:
        result = act()
    except Mismatch as mismatch:
        outcome, error = _MISMATCH, mismatch
    except Exception as damage:  # whatever Orbax, TensorStore and JSON make of files lost or cut short
        outcome, error = _DAMAGED, damage
    agreed = _worst(outcome)
    if agreed == _MISMATCH:
        raise error if outcome == _MISMATCH else Mismatch("see the error of another process.")
    if agreed == _DAMAGED:
        return None, one_line(error) if error else "another process could not read it"
    return result, ""


def _worst(outcome: int) -> int:
    """The highest outcome of all processes."""
    if jax.process_count() == 1:
        return outcome
    return int(multihost_utils.process_allgather(np.int32(outcome)).max())
