"""The only training loop: batches in, steps, reports and checkpoints out."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
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
    schedule: Schedule
    layout: Layout
    stop: Callable[[int], bool]  # asked after every step by every process: save this one and stop?


def resume(state: TrainState, checkpoints: TrainCheckpoints, layout: Layout, data: Mapping[str, Any]) -> TrainState:
    """`state` on the devices, or the newest checkpoint of the workdir in its place, whatever mesh wrote that.

    Raises:
      ValueError: that one was trained on other data than `data` says (see Run).
    """
    shardings = layout.slices(state)
    if checkpoints.latest_step() is None:
        return place(state, shardings)
    step, description = checkpoints.describe_step()
    check_same_data(step, description["metadata"].get("data"), data)
    return TrainState(**checkpoints.restore(abstract(state, shardings)._asdict()).state)


def check_same_data(step: int, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Raise ValueError that names what of `now` differs from `before`, the data of the checkpoint of that step."""
    if before is None:  # It is of a version that did not keep it.
        logging.warning("The checkpoint of step %d does not say on which data it was trained: not compared.", step)
        return
    names = sorted({name for name in {**before, **now} if before.get(name) != now.get(name)})
    if names:
        listed = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in names)
        raise ValueError(
            f"the checkpoint of step {step} was trained on other data: {listed}. Set it back, or use another workdir."
        )


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

    Metrics are read one step late, so that the device never waits for the host.

    Raises:
      FloatingPointError: a loss is not finite. The message names the step and the terms; the newest checkpoint is
        older than that step.
      Preempted: `run.stop` said so; the step is saved.
    """
    train_step = compile_step(run)
    pictures = jax.jit(run.pictures, out_shardings=run.layout.whole)
    picture_batch, vgg = place((run.picture_batch, run.vgg), run.layout.whole)
    schedule, first = run.schedule, int(state.step)
    batches = run.batches(first)
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
            if due["checkpoint_every"] or stop:
                check_finite(step, metrics)
                checkpoints.save(step, state._asdict(), config, domains, {"data": dict(run.data)})
            if stop:
                break
            if due["pictures_every"]:
                grids = pictures(state.generator_ema or state.generator, picture_batch)
                reporter.pictures(step, {name: to_uint8(grid) for name, grid in grids.items()})
            bar.update()
        if late is not None:
            _report(*late, schedule, reporter, bar)
            if not bar.disable:
                bar.write(f"{late[0] - first} steps in {time.perf_counter() - clock:.0f} s")
    checkpoints.wait()
    if late is not None and late[0] < schedule.steps:
        raise Preempted(late[0])
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
