"""The only training loop: batches in, steps, reports and checkpoints out."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.training.continuity import check_continues
from toontalker_jax.training.preemption import Preempted
from toontalker_jax.training.reporting import Reporter
from toontalker_jax.training.sharding import Layout, abstract, place, shard_batch
from toontalker_jax.training.state import TrainState
from toontalker_jax.training.step import Batch, Metrics


class Schedule(NamedTuple):
    """How long, and how often, in steps."""

    steps: int
    log_every: int
    pictures_every: int
    checkpoint_every: int


class Run(NamedTuple):
    """Everything that `train` needs and does not make itself."""

    train_step: Callable[[TrainState, Batch, VGG19 | None], tuple[TrainState, Metrics]]
    vgg: VGG19 | None  # the perceptual network, if a loss needs it
    pictures: Callable[[Any, Batch], dict[str, jax.Array]]
    picture_batch: Batch  # shown at every pictures_every; numpy
    batches: Callable[[int], Iterator[Batch]]  # from the number of steps already done; this process's rows, numpy
    data: Mapping[str, Any]  # what decides the batches, besides the step; kept in the checkpoints, as JSON
    recipe: Mapping[str, Any]  # the whole config; kept in the checkpoints, as JSON
    schedule: Schedule
    layout: Layout
    stop: Callable[[int], bool]  # asked after every step by every process: save this one and stop?


def resume(
    state: TrainState, checkpoints: TrainCheckpoints, layout: Layout, data: Mapping[str, Any], recipe: Mapping[str, Any]
) -> TrainState:
    """`state` on the devices, or the newest sound checkpoint in its place, whatever mesh wrote that.

    Args:
      data, recipe: see Run.

    Raises:
      Mismatch: that one was trained otherwise, or on other data.
      OSError: there are checkpoints, and all of them are damaged.
    """
    shardings = layout.slices(state)
    if checkpoints.latest_step() is None:
        return place(state, shardings)

    def check(step: int, metadata: Mapping[str, Any]) -> None:
        check_continues(step, metadata, data, recipe)

    return TrainState(**checkpoints.restore_newest(abstract(state, shardings)._asdict(), check).state)


def compile_step(run: Run) -> Callable:
    """The jitted `run.train_step`: the state is donated, and comes back as it lay."""
    layout = run.layout

    def train_step(state: TrainState, batch: Batch, vgg: VGG19 | None) -> tuple[TrainState, Metrics]:
        state, metrics = run.train_step(state, batch, vgg)
        return layout.scatter(state), layout.gather(metrics)

    return jax.jit(train_step, donate_argnums=0)


def train(
    run: Run, state: TrainState, checkpoints: TrainCheckpoints, reporter: Reporter, config: ModelConfig, domains
) -> TrainState:
    """Run from `state.step` to `schedule.steps`; the last step is always reported and saved.

    Metrics are read one step late, so that the device never waits for the host; before a checkpoint at once, so that
    the log never ends before the newest checkpoint.

    Raises:
      FloatingPointError: a loss is not finite. The message names the step and the terms; the newest checkpoint is
        older than that step.
      OSError: a checkpoint could not be written.
      Preempted: `run.stop` said so; the step is saved.
    """
    train_step = compile_step(run)
    pictures = jax.jit(run.pictures, out_shardings=run.layout.whole)
    picture_batch, vgg = place((run.picture_batch, run.vgg), run.layout.whole)
    schedule, first = run.schedule, int(state.step)
    batches, step, stop = run.batches(first), first, False
    metadata = {"data": dict(run.data), "recipe": dict(run.recipe)}
    late: tuple[int, Metrics] | None = None
    clock = time.perf_counter()
    with tqdm(total=schedule.steps, initial=first, unit="step", disable=jax.process_index() > 0) as bar:
        for step in range(first + 1, schedule.steps + 1):
            state, metrics = train_step(state, shard_batch(next(batches), run.layout.mesh), vgg)
            if late is not None:
                _report(*late, schedule, reporter, bar)
            late = step, metrics
            stop = run.stop(step) and step < schedule.steps
            due = {name: step % getattr(schedule, name) == 0 or step == schedule.steps for name in schedule._fields}
            checkpoints.check_saved()
            if due["checkpoint_every"] or stop:
                _report(step, metrics, schedule, reporter, bar)
                late = None
                reporter.flush()
                checkpoints.save(step, state._asdict(), config, domains, metadata)
            if stop:
                break
            if due["pictures_every"]:
                grids = pictures(state.generator_ema or state.generator, picture_batch)
                reporter.pictures(step, {name: to_uint8(grid) for name, grid in grids.items()})
            bar.update()
        if step > first:
            bar.write(f"{step - first} steps in {time.perf_counter() - clock:.0f} s")
    checkpoints.wait()
    if stop:
        raise Preempted(step)
    return state


def check_finite(step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Raise FloatingPointError that names the terms of this step that are not finite."""
    culprits = {name: float(value) for name, value in metrics.items() if not np.isfinite(float(value))}
    if culprits:
        listed = ", ".join(f"{name} = {value}" for name, value in culprits.items())
        raise FloatingPointError(
            f"step {step}: {listed}. Nothing was saved after it: lower the learning rate, or look at this step's batch."
        )


def to_uint8(grid: jax.Array) -> np.ndarray:
    """[-1, 1] → 0 … 255."""
    return np.rint((np.clip(np.asarray(grid, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def _report(step: int, metrics: Metrics, schedule: Schedule, reporter: Reporter, bar: tqdm) -> None:
    check_finite(step, metrics)
    if step == 1 or step % schedule.log_every == 0 or step == schedule.steps:
        values = {name: float(value) for name, value in metrics.items()}
        reporter.scalars(step, values)
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
