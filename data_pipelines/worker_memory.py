"""Memory that worker processes decode into and the process they work for reads: given back, and used again.

The system clears new memory page by page as it is first written. Grain makes new shared memory for each array: 290 us a
frame of 256 px, besides 450 us of decoding; into memory that was written before, the copy takes 9 us. So a worker keeps
its blocks. An array lies in one of them; a mark behind it says that somebody may read it, and is taken away when the
last reference to the array is gone from the process that got it. A block has no name: it ends with the last process
that maps it, however that process ends.
"""

import collections
import dataclasses
import math
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

# On Linux, where processes can be looked at; elsewhere Grain's way has to do.
SHARES_MEMORY = hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")
_FREE, _IN_USE = 0, 1  # the last byte of a block
_DYING_S = 1.0  # Its files may be gone before it has ended.


@dataclasses.dataclass(frozen=True)
class SentArray:
    """Where an array is to be found, sent in its place."""

    process: int
    file: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str


class WorkerMemory:
    """The blocks of one worker. Sent to another process, it arrives without any."""

    def __init__(self):
        self._lock = threading.Lock()
        self._blocks: list[tuple[int, mmap.mmap]] = []  # file descriptors and what they map

    def __reduce__(self) -> tuple[type, tuple]:
        return WorkerMemory, ()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """As np.empty, in a block that nobody uses."""
        size = math.prod(shape) * np.dtype(dtype).itemsize + 1
        with self._lock:
            free = (block for _, block in self._blocks if len(block) == size and block[-1] == _FREE)
            block = next(free, None) or self._new(size)
            block[-1] = _IN_USE
        return np.ndarray(shape, dtype, buffer=block)

    def _new(self, size: int) -> mmap.mmap:
        file = os.memfd_create("decoded")
        os.ftruncate(file, size)
        self._blocks.append((file, mmap.mmap(file, size)))
        return self._blocks[-1][1]

    def sent(self, array: np.ndarray) -> SentArray:
        """What to send in place of an array that `empty` made, as it is."""
        with self._lock:
            file, block = next(block for block in self._blocks if block[1] is array.base)
        return SentArray(os.getpid(), file, len(block), array.shape, array.dtype.str)


@dataclasses.dataclass(frozen=True)
class Sending:
    """Decodes batches in a worker, and says where they lie.

    Attributes:
      load: (step, empty: as np.empty) → batch of arrays made by `empty`, and anything else.
    """

    load: Callable[..., tuple[Any, Any]]
    memory: WorkerMemory = dataclasses.field(default_factory=WorkerMemory)

    def __call__(self, step: int) -> tuple[Any, Any]:
        batch, rest = self.load(step, self.memory.empty)
        return _replaced(batch, self.memory.sent), rest


class Receiving(Iterator):
    """The batches that workers tell of. An array is the caller's as long as anything refers to it or a part of it."""

    def __init__(self, elements: Iterator):
        self._elements = elements
        self._blocks: dict[tuple[int, int], mmap.mmap] = {}

    def __next__(self) -> tuple[Any, Any]:
        """Raises OSError if a worker's memory cannot be opened, and what `elements` raises if it has ended."""
        batch, rest = next(self._elements)
        try:
            return _replaced(batch, self._array), rest
        except _WorkerEnded:  # Grain finds out how when it has no more to tell, and raises.
            collections.deque(self._elements, maxlen=0)
            raise

    def _array(self, sent: SentArray) -> np.ndarray:
        block = self._blocks.get((sent.process, sent.file))
        if block is None:
            file = _opened(sent)
            block = self._blocks[sent.process, sent.file] = mmap.mmap(file, sent.bytes)
            os.close(file)
        # Whatever shows a part of an array refers to it. What reads memory in the background, as JAX does, too.
        array = np.ndarray(sent.shape, sent.dtype, buffer=block)
        weakref.finalize(array, _give_back, block, os.getpid()).atexit = False
        return array

    def close(self) -> None:
        """Closes the elements; arrays stay."""
        self._elements.close()


class _WorkerEnded(OSError):
    """Its blocks went with it."""


def _opened(sent: SentArray) -> int:
    try:
        return os.open(f"/proc/{sent.process}/fd/{sent.file}", os.O_RDWR)
    except OSError as error:
        if _ends(sent.process):
            raise _WorkerEnded(*error.args) from None
        what = f"the memory of decoding process {sent.process} cannot be opened ({error.strerror})"
        raise OSError(f"{what}: use fewer data.workers, or none") from None


def _ends(process: int) -> bool:
    """Whether a process has ended, or is about to.

    What is left of it until somebody asks how it ended (a zombie) has no files any more; only root is told so, other
    users are not allowed to look.
    """
    until = time.monotonic() + _DYING_S
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def _give_back(block: mmap.mmap, user: int) -> None:
    if os.getpid() == user:  # and not a copy of it that was forked
        block[-1] = _FREE


def _replaced(batch: Any, change: Callable) -> Any:
    """The batch with every array, or what stands for it, changed."""
    return {key: _replaced(part, change) for key, part in batch.items()} if isinstance(batch, dict) else change(batch)
