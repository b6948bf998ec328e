"""What becomes of freed memory. It decides the speed of much that runs on a CPU, and no result."""

import contextlib
import ctypes
from typing import Literal

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # glibc's malloc.h


def keep_freed_memory(large_of: Literal["no thread", "main thread", "all threads"] = "no thread") -> None:
    """Lets glibc keep freed memory for what is allocated next, in the whole process; other C libraries are left alone.

    The system clears memory page by page when it is first touched: a fifth of the time of decoding pictures.

    Args:
      large_of: whose blocks from 64 MiB on are kept, too. Only the main thread's heap can hold them: with "all
        threads", which is to be said before others start, all share it.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_THRESHOLD, 2**26)
        allocator.mallopt(_M_TRIM_THRESHOLD, -1)
        if large_of != "no thread":
            allocator.mallopt(_M_MMAP_MAX, 0)
        if large_of == "all threads":
            allocator.mallopt(_M_ARENA_MAX, 1)
