"""What becomes of freed memory. It decides the speed of much that runs on a CPU, and no result."""

import contextlib
import ctypes
import importlib.util
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8  # glibc's malloc.h


def keep_freed_memory(whole: bool = False) -> None:
    """Lets glibc keep freed memory for what is allocated next, in the whole process; other C libraries are left alone.

    The system clears memory page by page when it is first touched: a fifth of the time of decoding pictures, and a
    tenth of that of a network on a CPU, as XLA allocates its temporaries anew in every call. Blocks from 64 MiB on are
    still given back when they are freed; with `whole` they stay, too, and all threads share one heap, as the others
    cannot hold such blocks: for a process whose network runs on the CPU, before JAX starts its threads.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_MMAP_THRESHOLD, 2**26)
        allocator.mallopt(_M_TRIM_THRESHOLD, -1)
        if whole:
            allocator.mallopt(_M_MMAP_MAX, 0)
            allocator.mallopt(_M_ARENA_MAX, 1)


def settle_for_cpu() -> None:
    """`keep_freed_memory(whole=True)` where JAX will find nothing but the CPU. To be called before JAX starts."""
    accelerators = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not accelerators:
        keep_freed_memory(whole=True)
