"""Settings of a process whose networks run on the CPU; they change its speed and no result."""

import importlib.util
import os

import jax

from data_pipelines.host_memory import keep_freed_memory


def settle_for_cpu(training: bool = False) -> None:
    """Where JAX will find nothing but the CPU: what programs allocate is kept for their next call.

    XLA allocates a program's temporaries and the scratch of convolutions anew in every call, up to hundreds of MiB, and
    glibc keeps blocks of that size in the main thread's heap alone. For reenactment all threads share this heap, since
    it is XLA's own threads that take the scratch. Training compiles so much that thousands of pieces lie about in a
    shared heap, and finding one that fits takes a seventh of a step: there, programs run in the thread that calls them,
    and so does the taking of temporaries. (docs/benchmarks.md)

    To be called before JAX starts. Training gains by it in the main thread, on one device.
    """
    accelerators = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    if accelerators and os.environ.get("JAX_PLATFORMS") != "cpu":
        return
    if training:
        keep_freed_memory("main thread")
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    else:
        keep_freed_memory("all threads")
