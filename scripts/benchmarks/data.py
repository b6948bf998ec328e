"""Pairs/s of the loader against bare JPEG decoding of the same records, both measured in turn; medians of the rounds.

For one thread, a thread a core, one worker process, and a worker process a core: pairs/s, frames/s, and the share of
what decoding alone gives on the same cores: with one, all there is to do is done on that one (where the system lets a
process choose), since the cores of a shared machine differ. Then the time from opening the data to the first batch,
and the memory at the start and at the end of every round (of this process, in MiB).
"""

import concurrent.futures
import contextlib
import os
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from data_pipelines import transforms
from data_pipelines.clips import open_clips
from data_pipelines.loaders import Batches, Reading, pair_batches
from data_pipelines.prepared_clips import PreparedClips

_DATA = flags.DEFINE_string("data", None, "data: data set written by prepare_data.py.")
_SPLIT = flags.DEFINE_string("split", "train", "data: its split.")
_PAIRS = flags.DEFINE_integer("pairs", 16, "data: pairs of a batch.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 4, "data: length of one measurement.", lower_bound=0.1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "data: measurements of each kind.", lower_bound=1)
_RECORDS = 512  # of bare decoding


def memory() -> float:
    """Resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def decoding_rate(records: list[bytes], threads: int) -> float:
    """Frames/s that OpenCV decodes, with so many threads."""

    def decode(first: int) -> int:
        count, end = 0, time.perf_counter() + _SECONDS.value
        while time.perf_counter() < end:
            transforms.decode(records[(first + count) % len(records)])
            count += 1
        return count

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        frames = sum(pool.map(decode, range(threads)))
    return frames / (time.perf_counter() - start)


def loading_rate(batches: Batches) -> float:
    """Pairs/s of a loader that has been running."""
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < _SECONDS.value:
        count += len(next(batches)["source"])
    return count / passed


def settings(cores: int) -> Iterator[tuple[str, int, Reading]]:
    """Names, cores used and settings of the loaders."""
    yield "1 thread", 1, Reading(num_threads=1)
    yield f"{cores} threads", cores, Reading(num_threads=cores)
    yield "1 worker process", 1, Reading(num_workers=1, num_threads=1)
    yield f"{cores} worker processes", cores, Reading(num_workers=cores, num_threads=1)


def cores_allowed() -> list[int]:
    """The cores that this process may have."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """What is started meanwhile, threads and processes, stays on the first `count` cores of those it may have."""
    allowed = cores_allowed()
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    os.sched_setaffinity(0, allowed[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def measure_loader(clips: PreparedClips, records: list[bytes], cores: int, reading: Reading) -> dict[str, Any]:
    """Rates of one setting and of decoding, in turn, on so many cores."""
    with on_cores(cores):
        return _measure_loader(clips, records, cores, reading)


def _measure_loader(clips: PreparedClips, records: list[bytes], cores: int, reading: Reading) -> dict[str, Any]:
    batches = pair_batches(clips, _PAIRS.value, clips.image_size, seed=0, reading=reading)
    for _ in range(20):
        next(batches)  # fills the buffers
    used, decoding, loading = [memory()], [], []
    for _ in range(_ROUNDS.value):
        # The loader fills its buffers while nothing is asked of it: let it come to rest.
        time.sleep(0.5)
        decoding.append(decoding_rate(records, cores))
        for _ in range(20):
            next(batches)
        loading.append(loading_rate(batches))
        used.append(memory())
    batches.close()
    pairs = statistics.median(loading)
    return {
        "pairs_per_s": pairs,
        "frames_per_s": 2 * pairs,
        "frames_per_s_a_core": 2 * pairs / cores,
        "decoding_frames_per_s": statistics.median(decoding),
        "share_of_decoding": statistics.median(2 * p / d for p, d in zip(loading, decoding, strict=True)),
        "memory_mib": [round(number) for number in used],
    }


def measure() -> dict[str, Any]:
    """The report."""
    if not _DATA.value:
        raise ValueError("name the data set: --data=DIR")
    start = time.perf_counter()
    clips = open_clips(_DATA.value, _SPLIT.value)
    if not isinstance(clips, PreparedClips):
        raise ValueError(f"{_DATA.value} is no prepared data set: see scripts/prepare_data.py")
    batches = pair_batches(clips, _PAIRS.value, clips.image_size, seed=0)
    next(batches)
    first = time.perf_counter() - start
    batches.close()
    random, cores = np.random.default_rng(0), len(cores_allowed())
    chosen = random.integers(len(clips), size=_RECORDS).tolist()
    records = [clips.record(clip, int(random.integers(clips.lengths[clip])))["image"][0] for clip in chosen]
    return {
        "data": _DATA.value,
        "split": _SPLIT.value,
        "clips": len(clips),
        "frames": sum(clips.lengths),
        "image_size": clips.image_size,
        "kilobytes_a_frame": statistics.mean(map(len, records)) / 1000,
        "batch_size": _PAIRS.value,
        "first_batch_s": first,
        "memory_at_start_mib": round(memory()),
        "loaders": {name: measure_loader(clips, records, *rest) for name, *rest in settings(cores)},
    }
