"""The only training loop: batches in, steps, reports and checkpoints out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.training.continuity import check_continues
from toontalker_jax.training.pace import Pace, Tracer, peak_flops
from toontalker_jax.training.preemption import Preempted
from toontalker_jax.training.reporting import Reporter
from toontalker_jax.training.sharding import Layout, abstract, place, shard_batch
from toontalker_jax.training.state import TrainState
from toontalker_jax.training.step import Batch, Metrics
from toontalker_jax.training.watch import Schedule, Watch


class Run(NamedTuple):
    """Everything that `train` needs and does not make itself."""

    train_step: Callable[[TrainState, Batch, VGG19 | None], tuple[TrainState, Metrics]]
    vgg: VGG19 | None  # the perceptual network, if a loss needs it
    pictures: Callable[[Any, Batch], dict[str, jax.Array]]
    shown: Batch  # rows for the pictures, numpy, the same in each process
    batch: Batch  # shapes and types of a whole batch, of all processes
    rows: int  # pairs, or tuples of both directions, in a step
    batches: Callable[[int], Iterator[Batch]]  # from the number of steps already done; this process's rows, numpy
    data: Mapping[str, Any]  # what decides the batches, besides the step; kept in the checkpoints, as JSON
    recipe: Mapping[str, Any]  # the whole config; kept in the checkpoints, as JSON
    schedule: Schedule
    layout: Layout
    stop: Callable[[int], bool]  # asked after every step by every process: save this one and stop?
    count_flops: Callable[[], float]  # of a step; asked where the devices' peak is known
    trace_steps: int = 0  # to be profiled


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


def jitted(train_step: Callable, state: TrainState, layout: Layout) -> Callable:
    """`train_step` under jit: the state, abstract or not, is donated, and comes back as it lay."""
    return jax.jit(train_step, donate_argnums=0, out_shardings=(layout.slices(state), layout.whole))


def train(
    run: Run, state: TrainState, checkpoints: TrainCheckpoints, reporter: Reporter, config: ModelConfig, domains
) -> TrainState:
    """Run from `state.step` to `schedule.steps`; the last step is always reported and saved.

    Metrics and pictures are read one step late, so that the device never waits for the host; before a checkpoint at
    once, so that the log never ends before the newest checkpoint.

    Raises:
      FloatingPointError: a loss is not finite. The message names the step and the terms; the newest checkpoint is
        older than that step.
      OSError: a checkpoint could not be written.
      Preempted: `run.stop` said so; the step is saved.
    """
    layout, schedule, first = run.layout, run.schedule, int(state.step)
    if first >= schedule.steps:
        logging.warning("%s is at step %d, of %d: nothing to do.", reporter.workdir, first, schedule.steps)
        return state
    shown, vgg = place((run.shown, run.vgg), layout.whole)
    train_step = jitted(run.train_step, state, layout).lower(state, abstract(run.batch, layout.rows), vgg).compile()
    pictures = jax.jit(run.pictures, out_shardings=layout.whole)
    batches, step, stop = run.batches(first), first, False
    metadata = {"data": dict(run.data), "recipe": dict(run.recipe)}
    late: tuple[int, Metrics, dict[str, jax.Array]] | None = None
    peak = peak_flops(layout.mesh.devices.ravel())
    pace = Pace(run.rows, schedule.steps, run.count_flops() if peak else None, peak)
    with Watch(schedule, first, reporter, pace, Tracer(reporter.workdir, first, run.trace_steps)) as watch:
        for step in range(first + 1, schedule.steps + 1):
            with watch.waiting():
                batch = next(batches)
            state, metrics = train_step(state, shard_batch(batch, layout.mesh), vgg)
            if late is not None:
                watch.report(*late)
            shows = schedule.due("pictures_every", step)
            late = step, metrics, pictures(state.generator_ema or state.generator, shown) if shows else {}
            stop = run.stop(step) and step < schedule.steps
            checkpoints.check_saved()
            if stop or schedule.due("checkpoint_every", step):
                watch.report(*late)
                late = None
                reporter.flush()
                checkpoints.save(step, state._asdict(), config, domains, metadata)
            if stop:
                break
    checkpoints.wait()
    if stop:
        raise Preempted(step)
    return state
