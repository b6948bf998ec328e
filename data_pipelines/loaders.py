"""Endless batches of pairs and analogy tuples, a function of (seed, step) alone.

Row r of step s is row s * batch_size + r of an endless list, in which every clip serves once an epoch, in an order
drawn anew each time, and each row has generators of its own. So the same global batches come out whatever the number
of processes, of worker processes and of threads, and a run that resumes at a step gets what it would have got.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import grain
import numpy as np
from absl import flags, logging

from data_pipelines.batches import AnalogyBatch, PairBatch, Stage2Batch
from data_pipelines.clip_source import ClipSource
from data_pipelines.open_files import raise_limit
from data_pipelines.rows import AnalogyDraw, Empty, PairDraw, Rows, check_bad_records, check_clips
from data_pipelines.sampling import ClipOrder, Sampling, derived_seed
from data_pipelines.worker_memory import SHARES_MEMORY, Receiving, Sending
from data_pipelines.worker_processes import settle_process, start_worker

Batch = TypeVar("Batch")


def _check_lows(numbers: Any, **lows: int) -> None:
    for name, low in lows.items():
        if getattr(numbers, name) < low:
            raise ValueError(f"{name} is {getattr(numbers, name)}: use at least {low}")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a process reads its rows. Changes nothing in the global batches: a run may go on with another one.

    Attributes:
      process_index, process_count: process p of n, from 0, decodes the rows [p, p + 1) * B / n of B; n divides B.
      num_workers: processes that decode for this one; 0: it decodes itself. They are spawned, so the main script needs
        an `if __name__ == "__main__"` guard and parsed absl flags, and they import what it imports; importing jax
        starts no device. Each holds its own copy of the clips: of videos, all their frames. Threads do as well on few
        cores: OpenCV decodes without Python's lock.
      num_threads: decoding threads, of this process or of each worker; 0: none, it decodes when a batch is asked for.
      prefetch: batches decoded ahead, at least one a thread; of workers, about as many again are under way.
      max_bad_records: how many frames that cannot be read this process skips before it stops with an error.

    Raises:
      ValueError: a number out of its range.
    """

    process_index: int = 0
    process_count: int = 1
    num_workers: int = 0
    num_threads: int = 2
    prefetch: int = 4
    max_bad_records: int = 100

    def __post_init__(self):
        _check_lows(self, process_index=0, process_count=1, num_workers=0, num_threads=0, prefetch=1, max_bad_records=0)
        if self.process_index >= self.process_count:
            raise ValueError(f"process_index is {self.process_index}: of {self.process_count} processes, count from 0")


_ANY_TWO_FRAMES, _ONE_PROCESS = Sampling(), Reading()


class Batches(Iterator[Batch], Generic[Batch]):
    """Batches without end.

    Attributes:
      state: what decides them, besides the step; goes into JSON as it is. Runs of equal states have equal batches, as
        long as the clips show the same: their names, lengths and identities are compared, not their pictures.
      bad_records: what was wrong with each frame that this process skipped so far, its workers' included.
    """

    def __init__(self, elements: Iterator, state: dict[str, Any], max_bad_records: int):
        """`elements`: (batch, messages of the bad records that it met)."""
        self._elements = elements
        self._max_bad_records = max_bad_records
        self.state = state
        self.bad_records: list[str] = []

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
          BadRecord: there were more bad records than allowed.
          OSError: a worker process has ended.
        """
        try:
            batch, bad = next(self._elements)
        except RuntimeError as error:  # Grain's word for it
            if "terminated unexpectedly" not in str(error):
                raise
            what = "a decoding process has ended; if memory ran out, use fewer data.workers"
            raise OSError(f"{what}: {error}") from None
        for message in bad:
            if message not in self.bad_records:
                self.bad_records.append(message)
                # An error, since processes but the first tell no warnings.
                logging.error("bad record %d, replaced by another draw: %s", len(self.bad_records), message)
                check_bad_records(self.bad_records, self._max_bad_records)
        return batch

    def close(self) -> None:
        """Ends threads and worker processes."""
        self._elements.close()


def pair_batches(
    clips: ClipSource,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    sampling: Sampling = _ANY_TWO_FRAMES,
    reading: Reading = _ONE_PROCESS,
) -> Batches[PairBatch]:
    """Batches of two distinct frames of a clip, without end.

    A frame that cannot be read is named in the log, and its row replaced by another draw, a function of (seed, row,
    attempt).

    Args:
      clips: frames of image_size × image_size.
      batch_size: rows of the GLOBAL batch, B; of n processes each yields B / n.
      image_size: side of the frames in pixels, S; checked, nothing is resized here.
      seed: any whole number from 0.
      start_step: the step of the first batch.
      sampling: what the rows show.
      reading: how they are read.

    Returns:
      An iterator of uint8 [B / n, S, S, 3] pairs.

    Raises:
      ValueError: at once, for numbers that do not fit, no clips, a clip that is too short, frames of another size.
      BadRecord: at once, if no clip can be read.
    """
    plan = _Plan(batch_size, image_size, seed, start_step, sampling, reading)
    plan.check(clips, pairs=True)
    draw = PairDraw(clips, ClipOrder(clips.identities, sampling.identity_balanced, seed), sampling)
    return plan.batches(plan.rows(draw, seed, batch_size), plan.state(clips=clips))


def analogy_batches(
    drivers: ClipSource,
    sources: ClipSource,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    sampling: Sampling = _ANY_TWO_FRAMES,
    reading: Reading = _ONE_PROCESS,
) -> Batches[AnalogyBatch]:
    """Batches of two distinct frames of a driver clip and one frame of a source clip, without end.

    Drivers and sources are shuffled apart, each in epochs of its own length. Else as `pair_batches`.
    """
    plan = _Plan(batch_size, image_size, seed, start_step, sampling, reading)
    rows = _analogy_rows(plan, drivers, sources, seed, batch_size)
    return plan.batches(rows, plan.state(drivers=drivers, sources=sources))


def stage2_batches(
    real: ClipSource,
    cartoon: ClipSource,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    sampling: Sampling = _ANY_TWO_FRAMES,
    reading: Reading = _ONE_PROCESS,
    driver_weights: tuple[float, float] = (1.0, 1.0),
) -> Batches[Stage2Batch]:
    """Analogy batches in both directions, 2 * batch_size rows in all. Else as `pair_batches`.

    Args:
      driver_weights: the shares of the rows that a real and a cartoon clip drive, in any unit, above 0. Equal ones give
        `batch_size` rows to each direction. Losses are means over the rows of a direction: this weighs no loss.
    """
    plan = _Plan(batch_size, image_size, seed, start_step, sampling, reading)
    counts = _rows_by_direction(batch_size, driver_weights, reading.process_count)
    rows = {
        "r2c": _analogy_rows(plan, real, cartoon, derived_seed(seed, "r2c"), counts["r2c"]),
        "c2r": _analogy_rows(plan, cartoon, real, derived_seed(seed, "c2r"), counts["c2r"]),
    }
    state = plan.state(real=real, cartoon=cartoon) | {f"rows of {name}": count for name, count in counts.items()}
    return plan.batches(_Directions(rows), state)


def _rows_by_direction(batch_size: int, driver_weights: tuple[float, float], processes: int) -> dict[str, int]:
    real, cartoon = driver_weights
    if not (0 < real < float("inf") and 0 < cartoon < float("inf")):
        raise ValueError(f"driver_weights are {real} and {cartoon}: use two numbers above 0")
    total = 2 * batch_size
    share = total * real / (real + cartoon)
    count = round(share / processes) * processes
    if abs(share - count) > 1e-6 * total or not 0 < count < total:
        count = min(max(count, processes), total - processes)
        raise ValueError(
            f"driver_weights {real} and {cartoon} give {share:g} and {total - share:g} of the {total} rows of a step: "
            f"each has to be a multiple of the {processes} process(es), as with {count} and {total - count}"
        )
    return {"r2c": count, "c2r": total - count}


def _analogy_rows(plan: "_Plan", drivers: ClipSource, sources: ClipSource, seed: int, batch_size: int) -> Rows:
    plan.check(drivers, pairs=True)
    plan.check(sources, pairs=False)
    balanced = plan.sampling.identity_balanced
    driver_order = ClipOrder(drivers.identities, balanced, seed)
    source_order = ClipOrder(sources.identities, balanced, derived_seed(seed, "sources"))
    draw = AnalogyDraw(drivers, sources, driver_order, source_order, plan.sampling)
    return plan.rows(draw, seed, batch_size)


@dataclasses.dataclass(frozen=True)
class _Directions:
    """Decodes the batches of several directions."""

    rows: dict[str, Rows]

    def __call__(self, step: int, empty: Empty = np.empty) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
        loaded = {name: rows(step, empty) for name, rows in self.rows.items()}
        return {name: batch for name, (batch, _) in loaded.items()}, [m for _, bad in loaded.values() for m in bad]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The numbers of a loader, checked."""

    batch_size: int
    image_size: int
    seed: int
    start_step: int
    sampling: Sampling
    reading: Reading

    def __post_init__(self):
        _check_lows(self, batch_size=1, image_size=1, seed=0, start_step=0)
        if self.batch_size % self.reading.process_count:
            processes = self.reading.process_count
            raise ValueError(f"batch_size is {self.batch_size}: use a multiple of the {processes} processes")
        if self.reading.num_workers and not flags.FLAGS.is_parsed():
            workers = self.reading.num_workers
            raise ValueError(f"num_workers is {workers}, which needs parsed absl flags: use absl.app.run, or 0 workers")

    def check(self, clips: ClipSource, pairs: bool) -> None:
        """Raises ValueError if rows of pairs, or of single frames, cannot be made of these clips."""
        shortest = self.sampling.min_distance + 1 if pairs else 1
        check_clips(clips, shortest, self.image_size, self.reading.max_bad_records)

    def rows(self, draw: Callable, seed: int, batch_size: int) -> Rows:
        """This process's rows of batches of `batch_size`."""
        count = batch_size // self.reading.process_count
        return Rows(
            draw=draw,
            seed=derived_seed(seed, "frames"),
            batch_size=batch_size,
            first=self.reading.process_index * count,
            count=count,
            image_size=self.image_size,
            sampling=self.sampling,
            max_bad_records=self.reading.max_bad_records,
        )

    def state(self, **sources: ClipSource) -> dict[str, Any]:
        """See Batches.state."""
        numbers = {"seed": self.seed, "batch_size": self.batch_size, "image_size": self.image_size}
        return numbers | dataclasses.asdict(self.sampling) | {name: _table(clips) for name, clips in sources.items()}

    def batches(self, load: Callable[[int], tuple[Any, list[str]]], state: dict[str, Any]) -> Batches:
        """From start_step on; `load` is Rows or _Directions. Threads and workers start when the first is asked for."""
        reading = self.reading
        settle_process()
        shared = reading.num_workers > 0 and SHARES_MEMORY
        steps = grain.MapDataset.range(self.start_step, sys.maxsize).map(Sending(load) if shared else load)
        ahead = reading.num_threads if reading.num_workers else max(reading.num_threads, reading.prefetch)
        loaded = steps.to_iter_dataset(grain.ReadOptions(num_threads=reading.num_threads, prefetch_buffer_size=ahead))
        if reading.num_workers:
            raise_limit()
            each = -(-reading.prefetch // reading.num_workers)
            options = grain.MultiprocessingOptions(reading.num_workers, per_worker_buffer_size=each)
            loaded = loaded.mp_prefetch(options, worker_init_fn=start_worker)
        elements = Receiving(iter(loaded)) if shared else iter(loaded)
        return Batches(elements, state, reading.max_bad_records)


def _table(clips: ClipSource) -> str:
    """What tells one table of clips from another, whatever its length."""
    digest = hashlib.sha256()
    for clip, (length, identity) in enumerate(zip(clips.lengths, clips.identities, strict=True)):
        digest.update(f"{clips.name(clip)}\0{length}\0{identity}\n".encode())
    return f"{len(clips)} clips of {sum(clips.lengths)} frames, SHA-256 {digest.hexdigest()[:16]}"
