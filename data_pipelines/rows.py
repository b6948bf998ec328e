"""Decodes the rows of a batch, and replaces those whose records cannot be read.

Row r of step s is row s * B + r of an endless list. What it shows is a function of that number and the seed alone, so
every process decodes its own rows and no others. Everything here can be sent to a worker process.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from data_pipelines.augmentation import Change, draw_change
from data_pipelines.clip_source import BadRecord, ClipSource
from data_pipelines.sampling import ClipOrder, Sampling, row_generator, sample_analogy, sample_pair

Empty = Callable[[tuple[int, ...], type], np.ndarray]
_FRAMES, _CHANGES = 0, 1  # purposes of a row's generators
_READ_TOGETHER = 16  # rows
_ATTEMPTS = 100  # for a row; if half of all frames were bad, one in 10**12 rows of a pair would need more


class Take(NamedTuple):
    """Frames of one clip in a row: {key of the batch: frame}."""

    clips: ClipSource
    clip: int
    frames: dict[str, int]


class Frame(NamedTuple):
    """Frame `number` of a clip, for the array `key` of the batch."""

    key: str
    clips: ClipSource
    clip: int
    number: int
    change: Change


Fetched = tuple[Frame, Callable[[], np.ndarray]]  # and what decodes it


@dataclasses.dataclass(frozen=True)
class PairDraw:
    """Draws a pair: (row, attempt, generator) → what it takes."""

    clips: ClipSource
    order: ClipOrder
    sampling: Sampling

    def __call__(self, row: int, attempt: int, rng: np.random.Generator) -> list[Take]:
        clip = self.order(row, attempt, rng)
        distances = self.sampling.min_distance, self.sampling.max_distance
        source, driving = sample_pair(self.clips.lengths[clip], rng, *distances)
        return [Take(self.clips, clip, {"source": source, "driving": driving})]


@dataclasses.dataclass(frozen=True)
class AnalogyDraw:
    """Draws an analogy tuple: (row, attempt, generator) → what it takes."""

    drivers: ClipSource
    sources: ClipSource
    driver_order: ClipOrder
    source_order: ClipOrder
    sampling: Sampling

    def __call__(self, row: int, attempt: int, rng: np.random.Generator) -> list[Take]:
        driver, source = self.driver_order(row, attempt, rng), self.source_order(row, attempt, rng)
        lengths = self.drivers.lengths[driver], self.sources.lengths[source]
        distances = self.sampling.min_distance, self.sampling.max_distance
        a, b, c = sample_analogy(*lengths, rng, *distances)
        return [Take(self.drivers, driver, {"reference": a, "driving": b}), Take(self.sources, source, {"source": c})]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Decodes the rows [first, first + count) of each batch of `batch_size` rows.

    Attributes:
      draw: (row, attempt, generator) → what a row takes; the generator's seed is `seed`.
    """

    draw: Callable[[int, int, np.random.Generator], list[Take]]
    seed: int
    batch_size: int
    first: int
    count: int
    image_size: int
    sampling: Sampling
    max_bad_records: int

    def __call__(self, step: int, empty: Empty = np.empty) -> tuple[dict[str, np.ndarray], list[str]]:
        """The batch, {key: uint8 [count, S, S, 3]}, and the messages of the distinct bad records that it met.

        Args:
          step: the batch's number.
          empty: makes its arrays, of (shape, dtype).

        Raises:
          BadRecord: more of them than max_bad_records.
          ValueError: a frame of another size.
        """
        shape = self.count, self.image_size, self.image_size, 3
        batch: dict[str, np.ndarray] = collections.defaultdict(lambda: empty(shape, np.uint8))
        bad: list[str] = []
        for first in range(0, self.count, _READ_TOGETHER):
            places = range(first, min(first + _READ_TOGETHER, self.count))
            # All draws, then all reading, then all decoding: each finds its code and data in the caches. In turn, frame
            # by frame, drawing and reading take twice as long.
            rows = [step * self.batch_size + self.first + place for place in places]
            drawn = [self._draw(row, 0) for row in rows]
            fetched = [self._fetch(frames, bad) for frames in drawn]
            for place, row, frames in zip(places, rows, fetched, strict=True):
                self._fill(batch, place, row, frames, bad)
        return dict(batch), bad

    def _fill(
        self, batch: dict[str, np.ndarray], place: int, row: int, frames: list[Fetched] | None, bad: list[str]
    ) -> None:
        """Puts the first draw of a row in its place, or else the next one that meets no bad record."""
        for attempt in range(1, _ATTEMPTS + 1):
            if frames is not None and self._put(batch, place, frames, bad):
                return
            if attempt < _ATTEMPTS:
                frames = self._fetch(self._draw(row, attempt), bad)
        raise BadRecord(f"{_ATTEMPTS} draws for row {row} all met bad records: repair the data; last: {bad[-1]}")

    def _draw(self, row: int, attempt: int) -> list[Frame]:
        """What a row shows."""
        takes = self.draw(row, attempt, row_generator(self.seed, row, attempt, _FRAMES))
        change_rng = row_generator(self.seed, row, attempt, _CHANGES) if self.sampling.augments else None
        frames = []
        for clips, clip, numbers in takes:
            change = draw_change(change_rng, self.sampling.flip, self.sampling.colour_jitter)
            frames += [Frame(key, clips, clip, number, change) for key, number in numbers.items()]
        return frames

    def _fetch(self, frames: list[Frame], bad: list[str]) -> list[Fetched] | None:
        """Reads a row's frames; None if a record is bad."""
        try:
            return [(frame, frame.clips.fetch(frame.clip, frame.number)) for frame in frames]
        except BadRecord as error:
            self._note(error, bad)
            return None

    def _put(self, batch: dict[str, np.ndarray], place: int, frames: list[Fetched], bad: list[str]) -> bool:
        """Decodes a row's frames into its place; whether all could be decoded."""
        try:
            for frame, decode in frames:
                # Its memory, still in the cache, is to be free when the next one is decoded.
                picture = checked_size(decode(), frame.clips, frame.clip, frame.number, self.image_size)
                batch[frame.key][place] = frame.change(picture)
                del picture
        except BadRecord as error:
            self._note(error, bad)
            return False
        return True

    def _note(self, error: BadRecord, bad: list[str]) -> None:
        if str(error) not in bad:
            bad.append(str(error))
            check_bad_records(bad, self.max_bad_records)


def check_clips(clips: ClipSource, shortest: int, image_size: int, max_bad_records: int) -> None:
    """Checks the lengths of all clips, and the size of the first frame that can be read.

    Raises:
      ValueError: no clips, a clip of fewer than `shortest` frames, frames of another size.
      BadRecord: more bad records than max_bad_records before the first good one.
    """
    if len(clips) == 0:
        raise ValueError("the source holds no clips")
    for clip, length in enumerate(clips.lengths):
        if length < shortest:
            remedy = "remove it, or lower min_distance" if shortest > 2 else "remove it"
            raise ValueError(f"clip {clips.name(clip)} has {length} frame(s), {shortest} needed: {remedy}")
    bad: list[str] = []
    for clip in range(len(clips)):
        try:
            checked_size(clips.frame(clip, 0), clips, clip, 0, image_size)
            return
        except BadRecord as error:
            bad.append(str(error))
            check_bad_records(bad, max_bad_records)
    raise BadRecord(f"the first frame of no clip can be read; the last: {bad[-1]}")


def checked_size(image: np.ndarray, clips: ClipSource, clip: int, index: int, image_size: int) -> np.ndarray:
    """`image`, which is frame `index` of a clip, uint8 [S, S, 3]. Raises ValueError for another size."""
    if image.shape != (image_size, image_size, 3):
        raise ValueError(
            f"frame {index} of clip {clips.name(clip)} is {image.shape[1]}×{image.shape[0]} (width × height), "
            f"image_size is {image_size}: prepare or open the clips at this size"
        )
    return image


def check_bad_records(bad: list[str], limit: int) -> None:
    """Raises BadRecord if `bad`, a message for each, holds more than `limit`."""
    if len(bad) > limit:
        count = f"{len(bad)} bad record(s), more than max_bad_records = {limit}"
        raise BadRecord(f"{count}: repair the data or allow more; the last: {bad[-1]}")
