"""What is told while a run goes on: metrics, pace, alarms, the progress bar, and when it has to end."""

import contextlib
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from toontalker_jax.training.alarms import Alarms
from toontalker_jax.training.pace import Pace, Tracer
from toontalker_jax.training.reporting import Reporter


class Schedule(NamedTuple):
    """How long, and how often, in steps."""

    steps: int
    log_every: int
    pictures_every: int
    checkpoint_every: int

    def due(self, what: str, step: int) -> bool:
        """Whether the field's turn has come; the last step's always has."""
        return step % getattr(self, what) == 0 or step == self.steps


class Watch(contextlib.AbstractContextManager):
    """The eyes on a run, from its first step to its last."""

    def __init__(self, schedule: Schedule, first: int, reporter: Reporter, pace: Pace, tracer: Tracer):
        """`first`: steps done at the start."""
        self._schedule, self._first, self._reporter, self._pace, self._tracer = schedule, first, reporter, pace, tracer
        self._alarms, self._start = Alarms(), time.perf_counter()
        self._bar = tqdm(total=schedule.steps, initial=first, unit="step", disable=jax.process_index() > 0)

    def waiting(self) -> contextlib.AbstractContextManager:
        """Around what the devices may have to wait for: the next batch."""
        return self._pace.waiting()

    def report(self, step: int, metrics: Mapping[str, jax.Array], grids: Mapping[str, jax.Array]) -> None:
        """Of every step, in order; it waits for the step's end, and for the pictures in [-1, 1], {} where none are due.

        Raises:
          FloatingPointError: a metric is not finite.
        """
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        check_finite(step, values)
        self._tracer(step)
        self._bar.update()
        if step == 1 or self._schedule.due("log_every", step):
            pace = self._pace.lap(step)
            self._reporter.scalars(step, values, pace)
            self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        if grids:
            self._reporter.pictures(step, {name: to_uint8(grid) for name, grid in grids.items()})
        for line in self._alarms(step, values):
            if not self._bar.disable:
                logging.warning(line)

    def __exit__(self, *exception: object) -> None:
        self._tracer.close()
        if not self._bar.disable:
            self._bar.write(f"{self._bar.n - self._first} steps in {time.perf_counter() - self._start:.0f} s")
        self._bar.close()


def check_finite(step: int, values: Mapping[str, float]) -> None:
    """Raise FloatingPointError that names the terms of this step that are not finite."""
    culprits = {name: value for name, value in values.items() if not np.isfinite(value)}
    if culprits:
        listed = ", ".join(f"{name} = {value}" for name, value in culprits.items())
        raise FloatingPointError(
            f"step {step}: {listed}. Nothing was saved after it: lower the learning rate, or look at this step's batch."
        )


def to_uint8(grid: jax.Array) -> np.ndarray:
    """[-1, 1] → 0 … 255."""
    return np.rint((np.clip(np.asarray(grid, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)
