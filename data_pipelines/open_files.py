"""How many files a process may have open. An ArrayRecord data set keeps one open a shard, and a run of many worker
processes some dozens each, for their memory.
"""

import contextlib
import resource

_OTHERS = 100  # Files that a process has open besides: libraries, logs, checkpoints.


def raise_limit() -> int:
    """Raises this process's limit as far as it may, that of processes started later with it, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # as on systems that tell of no hard limit, but have one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def allow_open_files(count: int, what: str) -> None:
    """Raises the limit so that `count` files of `what`, a name, can be open.

    Raises:
      ValueError: they are too many even so.
    """
    soft = raise_limit()
    if soft != resource.RLIM_INFINITY and count + _OTHERS > soft:
        raise ValueError(
            f"{what}: {count} shards have to be open at once, and this process may open {soft} files: raise that limit "
            f"(ulimit -n {count + _OTHERS}) or prepare it anew in larger shards (--shard_mib)"
        )
