"""Reenactment from files to files, or on arrays: the Python face of scripts/reenact.py.

    reenactor = VideoReenactor("converted", Options(kind="r2c", source_crop="auto", paste_back=True))
    print(reenactor.write("drawing.png", "talk.mp4", "out.mp4"))
    for frame in reenactor.frames(picture, driving_frames): ...
"""

import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import faces, transforms, video_writer
from toontalker_jax.checkpoints import load_model
from toontalker_jax.media import Driver, Options, Source, open_driver, open_source
from toontalker_jax.reenactment.smoothing import smooth
from toontalker_jax.reenactment.templates import MotionTemplate, check_template, network_hash
from toontalker_jax.reenactment.transfer import KINDS, Reenactor

COMMENT = "Synthetic: face reenactment by ToonTalker-JAX, network {}"
SourceLike = Source | str | os.PathLike | np.ndarray
DriverLike = Driver | str | os.PathLike | Sequence[np.ndarray]
Progress = Callable[..., Iterable[Any]]  # like tqdm.tqdm: (iterable, description, total) → the same items


def no_progress(items: Iterable[Any], *_: Any) -> Iterable[Any]:
    return items


@dataclasses.dataclass(frozen=True)
class Written:
    """What was written, and how fast. `str` makes a line of it."""

    path: Path
    frames: int
    height: int
    width: int
    frame_rate: float
    seconds: float  # in all
    first_seconds: float  # until the first frame, compilation included
    reference_frame: int  # the driver's frame that counts as the source's pose; 0 also for absolute motion

    @property
    def frames_per_s(self) -> float | None:
        """Frames written a second after the first one, which compiles; None if there was one only."""
        rest = self.seconds - self.first_seconds
        return (self.frames - 1) / rest if self.frames > 1 and rest > 0 else None

    def __str__(self) -> str:
        what = f"{self.path}: {self.frames} frames of {self.width}×{self.height} at {self.frame_rate:g} frames/s"
        speed = f", then {self.frames_per_s:.1f} frames/s" if self.frames_per_s else ""
        line = f"{what} in {self.seconds:.1f} s (the first after {self.first_seconds:.1f} s{speed})"
        return f"{line}, reference frame {self.reference_frame}" if self.reference_frame else line


class VideoReenactor:
    """One network, loaded once, and what the options ask of it.

    A source is a path, uint8 [H, W, 3] RGB or an opened `Source`; a driver is a path, frames uint8 [H, W, 3] or an
    opened `Driver`. Frames are made as they are asked for; nothing grows with the length of the driver but, where
    `Options.whole_motion` holds or motion is passed in, its codes (4 · K · d bytes a frame).

    Attributes:
      options, config: as given; the network's.
      reenactor: what moves squares of the network's size.

    Raises:
      FileNotFoundError, ValueError: no checkpoint there, or one without the domains that `options.kind` needs.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        options: Options = Options(),  # noqa: B008
        *,
        dtype: str | None = None,
        progress: Progress = no_progress,
    ):
        """dtype: compute in this and not as the checkpoint says; progress: `tqdm.tqdm` shows bars.

        On a CPU, `toontalker_jax.cpu.settle_for_cpu`, called before JAX starts, makes it faster.
        """
        model = load_model(checkpoint, dtype=dtype)
        self.options, self.config = options, model.config
        self.reenactor = Reenactor(model, options.kind, options.motion, options.batch_size, options.motion_scale)
        self._model, self._progress, self._reference_frame = model, progress, 0

    @functools.cached_property
    def network(self) -> str:
        """`network_hash` of the network; takes a second or two for the official one."""
        return network_hash(self._model)

    def motion(self, driver: DriverLike) -> MotionTemplate:
        """The driver's whole motion, to be used on many sources or saved (`save_template`).

        Raises:
          ValueError: a template of another network or domain.
        """
        driver = self._driver(driver)
        if driver.template:
            self._check_motion(driver.template, driver.path)
            return driver.template
        codes = self.reenactor.codes(driver.views(self.config.image_size))
        codes = np.stack(list(self._progress(codes, f"motion of {driver.path.name}", driver.num_frames)))
        return MotionTemplate(codes, KINDS[self.options.kind][0], self.network, driver.frame_rate, driver.times)

    def frames(
        self, source: SourceLike, driver: DriverLike, motion: MotionTemplate | None = None
    ) -> Iterator[np.ndarray]:
        """Yields the frames, uint8 [H, W, 3]: [S, S, 3], or as `paste_back` and `side_by_side` lay them out.

        `motion`: the driver's, from `self.motion`, which otherwise is computed.

        Raises:
          ValueError: an input cannot be, or motion of another network or domain.
        """
        source, driver, size = self._source(source), self._driver(driver), self.config.image_size
        self.reenactor.prepare(source.view(size))
        if motion is None and (self.options.whole_motion or driver.template):
            motion = self.motion(driver)
        views = driver.views(size) if self.options.side_by_side else itertools.repeat(None)
        if motion is None:
            # What is shown beside the result runs ahead of it by the batches under way, no more.
            seen, views = itertools.tee(views) if self.options.side_by_side else (driver.views(size), views)
            codes = smooth(self.reenactor.codes(seen), self.options.smooth)
        else:
            self._check_motion(motion, driver.path)
            codes = list(smooth(motion.codes, self.options.smooth))
            if self.options.motion == "relative":
                self._reference_frame = self._reference(codes, driver.path)
                self.reenactor.set_reference_code(codes[self._reference_frame])
        for result, view in zip(self.reenactor.render(codes), views, strict=False):
            yield self._laid_out(source, result, view)

    def write(
        self, source: SourceLike, driver: DriverLike, output: str | os.PathLike, motion: MotionTemplate | None = None
    ) -> Written:
        """Writes the frames to an .mp4, a .gif or, without a suffix, a folder of PNG files.

        Rate, time stamps and, in an .mp4, sound are the driver's. After an error nothing is left.

        Raises:
          ValueError, OSError: an input or the output cannot be.
        """
        source, driver, output = self._source(source), self._driver(driver), Path(output)
        inputs = (path.resolve() for path in (source.path, driver.path) if path.exists())  # arrays have no file
        if output.resolve() in inputs:
            raise ValueError(f"{output}: would overwrite an input: choose another name.")
        start, first, shape = time.monotonic(), 0.0, (0, 0)
        even = output.suffix.lower() == ".mp4"
        comment = COMMENT.format(self.network[:16]) if self.options.tag else ""
        sound = driver.sound if self.options.sound else None
        timing = {"frame_rate": driver.frame_rate, "times": driver.times}
        with video_writer.open_writer(output, **timing, sound=sound, comment=comment) as writer:
            frames = self._progress(self.frames(source, driver, motion), output.name, driver.num_frames)
            for frame in frames:
                first = first or time.monotonic()
                frame = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2] if even else frame
                writer.write(frame)
                shape = frame.shape
            count = writer.count
        seconds = time.monotonic() - start
        rate, reference = float(driver.frame_rate), self._reference_frame
        return Written(output, count, *shape[:2], rate, seconds, first - start, reference)

    def _check_motion(self, motion: MotionTemplate, path: Path) -> None:
        try:
            shape = (self.config.motion_slots, self.config.width)
            check_template(motion, KINDS[self.options.kind][0], self.network, shape)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def _reference(self, codes: Sequence[np.ndarray], path: Path) -> int:
        number = self.options.reference_frame
        number = self.reenactor.nearest(codes) if number == "best" else number
        if number >= len(codes):
            raise ValueError(f"{path}: reference_frame = {number}, but there are {len(codes)} frames (from 0).")
        return number

    def _laid_out(self, source: Source, result: np.ndarray, view: np.ndarray | None) -> np.ndarray:
        left = result
        if self.options.paste_back:
            left, result = source.picture, faces.paste_back(source.picture, source.box, result)
        elif self.options.side_by_side:
            left = source.view(self.config.image_size)
        if self.options.side_by_side:
            height = result.shape[0]
            result = np.concatenate([left, transforms.resize(view, height, height), result], axis=1)
        return result

    def _source(self, source: SourceLike) -> Source:
        return source.taken_up() if isinstance(source, Source) else open_source(source, self.options)

    def _driver(self, driver: DriverLike) -> Driver:
        return driver if isinstance(driver, Driver) else open_driver(driver, self.options)
