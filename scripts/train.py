"""Trains a stage.

    python scripts/train.py --config=configs/puppets.py:stage=1 --workdir=runs/puppets1
    python scripts/train.py --config=configs/puppets.py:stage=2 --workdir=runs/puppets2 --config.init=runs/puppets1

Run again with the same workdir, it resumes. The workdir gets config.json, parameters.txt, checkpoints/,
metrics.jsonl, pace.jsonl and tensorboard/. SIGTERM makes it save and end with status 75: run the same command again.
"""

import contextlib
import dataclasses
import functools
import json
import sys
import threading
from collections.abc import Callable

import jax
from absl import app, flags, logging
from clu import parameter_overview
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from data_pipelines.clip_source import BadRecord
from data_pipelines.host_memory import keep_freed_memory
from scripts.recipe import CONFIG
from scripts.recipe_data import open_batches, reading_options
from toontalker_jax import checkpoints
from toontalker_jax.convert.vgg import load_vgg19
from toontalker_jax.evaluation.flops import count_jaxpr_flops
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training import loop, preemption, processes, setup
from toontalker_jax.training.reporting import Reporter
from toontalker_jax.training.sharding import Layout, check_batch, make_mesh
from toontalker_jax.training.state import start_stage2

_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
_TRACE = flags.DEFINE_integer("trace_steps", 0, "Steps to profile, from the 10th on: WORKDIR/profile, for TensorBoard.")
_DISTRIBUTED = flags.DEFINE_string(
    "distributed", "", "Join other processes: 'auto' (SLURM, TPU pods, …), or ADDRESS:PORT,PROCESSES,INDEX."
)
flags.mark_flag_as_required("config")


def initial_model(config: ConfigDict) -> ToonTalker:
    """The network that the run starts from: `config.init`, or fresh weights (stage 1 only)."""
    domains = setup.domains(config)
    if config.init:
        how = {name: config.model[name] for name in ("dtype", "dropout", "remat")}
        model = checkpoints.load_model(config.init, **how)
        return start_stage2(model) if config.stage == 2 and "cartoon" not in model.domains else model
    if config.stage == 2:
        raise ValueError("stage 2 starts from stage 1: name its workdir or checkpoint by --config.init=PATH.")
    return ToonTalker(ModelConfig(**config.model), domains, rngs=nnx.Rngs(config.seed))


def perceptual_network(config: ConfigDict) -> VGG19 | None:
    if config.weights.perceptual == 0:
        return None
    if not config.vgg:
        raise ValueError("weights.perceptual is set: name torchvision's vgg19 file by --config.vgg=FILE, or 'random'.")
    if config.vgg == "random":
        logging.warning("perceptual loss: UNTRAINED random VGG19 features, because config.vgg = 'random'.")
        return VGG19(dtype=config.model.dtype, rngs=nnx.Rngs(config.seed))
    return load_vgg19(config.vgg, dtype=config.model.dtype)


def quiet_writers() -> None:
    """Keeps pages of tracebacks out of the log when nothing can be written: one error is raised, too."""
    # Orbax: its own log, asyncio tasks that nobody awaits, and an event loop that its callbacks find closed.
    logging.get_absl_handler().addFilter(lambda record: "orbax" not in record.pathname and record.name != "asyncio")
    usual, of_threads = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda told: None if str(told.exc_value) == "Event loop is closed" else usual(told)
    # TensorBoard's writer is a thread; the reporter sees that it has ended.
    threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else of_threads(told)


def prepare(
    config: ConfigDict, workdir: epath.Path, notice: preemption.Notice, stack: contextlib.ExitStack
) -> Callable[[], None]:
    """What trains the run from its newest checkpoint to the end; `stack` closes what it opens.

    Raises:
      ValueError, TypeError, OSError: something in the config or in the workdir is wrong.
    """
    processes.join(_DISTRIBUTED.value)
    keep_freed_memory(whole=jax.default_backend() == "cpu")
    model, vgg = initial_model(config), perceptual_network(config)
    layout = Layout(make_mesh(config.mesh.fsdp))
    training = setup.set_up(config, model, layout)
    batches, reading = open_batches(config, model.config.image_size), reading_options(config.data)
    data = batches(reading=reading).state | {"first frame": config.data.first}
    recipe = json.loads(json.dumps(config.to_dict()))  # Tuples become lists, as in what is stored.
    # The whole batch, in every process the same; no threads or workers for a single one.
    at_once = dataclasses.replace(reading, process_index=0, process_count=1, num_workers=0, num_threads=0)
    first_batch = next(batches(reading=at_once))
    for rows in {len(pictures) for pictures in jax.tree.leaves(first_batch)}:
        check_batch(rows, config.accumulate, layout.mesh)
    keep = {"keep_newest": config.keep_newest, "keep_every": config.keep_every or None}
    saved = stack.enter_context(checkpoints.TrainCheckpoints(workdir, **keep))
    state = loop.resume(training.state, saved, layout, data, recipe)
    saved.check_space(state)
    if jax.process_index() == 0:
        (workdir / "config.json").write_text(json.dumps(recipe, indent=2) + "\n")
        overview = parameter_overview.get_parameter_overview(state.generator, include_stats=False)
        (workdir / "parameters.txt").write_text(overview + "\n")
    run = loop.Run(
        train_step=training.train_step,
        vgg=vgg,
        pictures=training.pictures,
        first_batch=first_batch,
        rows=config.batch_size * config.stage,
        batches=lambda done: stack.enter_context(contextlib.closing(batches(start_step=done, reading=reading))),
        data=data,
        recipe=recipe,
        schedule=loop.Schedule(config.steps, config.log_every, config.pictures_every, config.checkpoint_every),
        layout=layout,
        stop=notice,
        count_flops=count_jaxpr_flops,
        trace_steps=_TRACE.value,
    )
    reporter = stack.enter_context(contextlib.closing(Reporter(workdir, int(state.step))))
    return functools.partial(loop.train, run, state, saved, reporter, model.config, tuple(model.domains))


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells of its every step
    quiet_writers()
    try:
        notice = preemption.Notice()
        with contextlib.ExitStack() as stack:
            try:
                train = prepare(CONFIG.value, epath.Path(_WORKDIR.value), notice, stack)
            except (ValueError, TypeError) as error:
                raise SystemExit(f"error: {error}") from None
            train()
    except preemption.Preempted as notice:
        print(notice, file=sys.stderr)
        sys.exit(preemption.EXIT_STATUS)
    except (FloatingPointError, BadRecord, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    app.run(main)
