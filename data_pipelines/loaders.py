"""Endless batches of pairs and analogy tuples, a function of (seed, step) alone.

Row r of step s is row s * batch_size + r of an endless list, in which every clip serves once an epoch, in an order
drawn anew each time, and each row has a generator of its own for its frames. So the same global batches come out
whatever the number of processes, each of which decodes only its own rows, and a run that resumes at a step gets what it
would have got.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator

import cv2
import grain
import numpy as np

from data_pipelines import sampling, transforms
from data_pipelines.batches import AnalogyBatch, PairBatch, Stage2Batch
from data_pipelines.clips import ClipSource

# Where a picture of a row comes from: (clips, clip, frame).
_Place = tuple[ClipSource, int, int]


def pair_batches(
    clips: ClipSource,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    prefetch: int = 4,
) -> Iterator[PairBatch]:
    """Batches of two distinct frames of a clip, without end.

    Args:
      clips: frames of image_size × image_size.
      batch_size: rows of the GLOBAL batch, B; process p of n yields the rows [p, p + 1) * B / n.
      image_size: side of the frames in pixels, S; checked, nothing is resized here.
      seed: any whole number from 0.
      start_step: the step of the first batch.
      process_index: p, from 0.
      process_count: n; divides batch_size.
      num_threads: decoding threads.
      prefetch: batches that may wait decoded.

    Returns:
      An iterator of float32 [B / n, S, S, 3] pairs in [-1, 1].

    Raises:
      ValueError: at once, for numbers that do not fit, no clips, a clip with one frame, frames of another size.
    """
    plan = _Plan(batch_size, image_size, seed, start_step, process_index, process_count, num_threads, prefetch)
    _check_clips(clips, image_size, shortest=2)

    def sample(row: int, rng: np.random.Generator) -> dict[str, _Place]:
        clip = sampling.clip_of_row(row, len(clips), plan.seed)
        source, driving = sampling.sample_pair(clips.lengths[clip], rng)
        return {"source": (clips, clip, source), "driving": (clips, clip, driving)}

    return _batches(sample, plan)


def analogy_batches(
    drivers: ClipSource,
    sources: ClipSource,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
    prefetch: int = 4,
) -> Iterator[AnalogyBatch]:
    """Batches of two distinct frames of a driver clip and one frame of a source clip, without end.

    Drivers and sources are shuffled apart, each in epochs of its own length. Else as `pair_batches`.
    """
    plan = _Plan(batch_size, image_size, seed, start_step, process_index, process_count, num_threads, prefetch)
    _check_clips(drivers, image_size, shortest=2)
    _check_clips(sources, image_size, shortest=1)

    source_seed = _derived_seed(plan.seed, "sources")

    def sample(row: int, rng: np.random.Generator) -> dict[str, _Place]:
        driver = sampling.clip_of_row(row, len(drivers), plan.seed)
        source = sampling.clip_of_row(row, len(sources), source_seed)
        a, b, c = sampling.sample_analogy(drivers.lengths[driver], sources.lengths[source], rng)
        return {"reference": (drivers, driver, a), "driving": (drivers, driver, b), "source": (sources, source, c)}

    return _batches(sample, plan)


def stage2_batches(
    real: ClipSource,
    cartoon: ClipSource,
    batch_size: int,
    image_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 1,
    prefetch: int = 4,
) -> Iterator[Stage2Batch]:
    """Analogy batches in both directions, `batch_size` rows and `num_threads` threads each. Else as `pair_batches`."""
    rest = (start_step, process_index, process_count, num_threads, prefetch)
    _Plan(batch_size, image_size, seed, *rest)
    r2c = analogy_batches(real, cartoon, batch_size, image_size, _derived_seed(seed, "r2c"), *rest)
    c2r = analogy_batches(cartoon, real, batch_size, image_size, _derived_seed(seed, "c2r"), *rest)
    return ({"r2c": there, "c2r": back} for there, back in zip(r2c, c2r, strict=True))


@dataclasses.dataclass(frozen=True)
class _Plan:
    """The numbers of a loader, checked."""

    batch_size: int
    image_size: int
    seed: int
    start_step: int
    process_index: int
    process_count: int
    num_threads: int
    prefetch: int

    def __post_init__(self):
        lows = dict(batch_size=1, image_size=1, seed=0, start_step=0, process_index=0, process_count=1)
        for name, low in (lows | dict(num_threads=1, prefetch=1)).items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} is {getattr(self, name)}: use at least {low}")
        if self.process_index >= self.process_count:
            raise ValueError(f"process_index is {self.process_index}: of {self.process_count} processes, count from 0")
        if self.batch_size % self.process_count:
            raise ValueError(f"batch_size is {self.batch_size}: use a multiple of the {self.process_count} processes")

    @property
    def rows(self) -> slice:
        """The rows of the global batch that belong to this process."""
        share = self.batch_size // self.process_count
        return slice(self.process_index * share, (self.process_index + 1) * share)


def _check_clips(clips: ClipSource, image_size: int, shortest: int) -> None:
    if len(clips) == 0:
        raise ValueError("the source holds no clips")
    for clip, length in enumerate(clips.lengths):
        if length < shortest:
            raise ValueError(f"clip {clips.name(clip)} has {length} frame(s), {shortest} needed: remove it")
    _checked(clips, 0, 0, image_size)


def _checked(clips: ClipSource, clip: int, index: int, image_size: int) -> np.ndarray:
    image = clips.frame(clip, index)
    if image.shape != (image_size, image_size, 3):
        raise ValueError(
            f"frame {index} of clip {clips.name(clip)} is {image.shape[1]}×{image.shape[0]} (width × height), "
            f"image_size is {image_size}: prepare or open the clips at this size"
        )
    return image


def _derived_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2**32) whose draws are independent of those of `seed` and of other purposes."""
    return int(np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1)[0])


def _batches(sample: Callable[[int, np.random.Generator], dict[str, _Place]], plan: _Plan) -> Iterator:
    """Samples the rows 0, 1, 2 …, and decodes this process's rows of each global batch, from plan.start_step on."""

    def load(batch: list[dict[str, _Place]]) -> dict[str, np.ndarray]:
        rows = batch[plan.rows]
        return {
            key: transforms.to_float(np.stack([_checked(*row[key], plan.image_size) for row in rows]))
            for key in rows[0]
        }

    cv2.setNumThreads(1)  # Grain decodes batches in parallel; OpenCV's own threads would only take the cores from it.
    samples = grain.MapDataset.range(sys.maxsize).random_map(sample, seed=_derived_seed(plan.seed, "frames"))
    # The samples are cheap numbers, so they are drawn for all rows, and only then cut to this process's share.
    batches = samples.batch(plan.batch_size, drop_remainder=True, batch_fn=list)[plan.start_step :].map(load)
    options = grain.ReadOptions(num_threads=plan.num_threads, prefetch_buffer_size=plan.prefetch)
    return iter(batches.to_iter_dataset(options))
