"""Trains a stage.

    python scripts/train.py --config=configs/puppets.py:stage=1 --workdir=runs/puppets1
    python scripts/train.py --config=configs/puppets.py:stage=2 --workdir=runs/puppets2 --config.init=runs/puppets1

Run again with the same workdir, it resumes. The workdir gets config.json, parameters.txt, checkpoints/,
metrics.jsonl, pace.jsonl and tensorboard/. SIGTERM makes it save and end with status 75: run the same command again.
"""

import contextlib
import functools
import sys
from collections.abc import Callable

import jax
from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict

from data_pipelines.clip_source import BadRecord
from scripts.endings import in_one_line
from scripts.recipe import CONFIG, as_json, parse_flags
from scripts.recipe_data import batch_shapes, first_rows, open_batches, reading_options
from scripts.recipe_networks import check_start, perceptual_network, starting_point, step_flops, vgg_digest
from toontalker_jax import checkpoints
from toontalker_jax.cpu import settle_for_cpu
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.discriminator import STD_GROUP
from toontalker_jax.training import failed_writes, loop, preemption, processes, setup
from toontalker_jax.training.reporting import Reporter, describe_run, held
from toontalker_jax.training.sharding import Layout, check_divides, make_mesh

_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
_TRACE = flags.DEFINE_integer(
    "trace_steps", 0, "Steps to profile, from the 10th on: WORKDIR/profile, for TensorBoard.", lower_bound=0
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed", "", "Join other processes: 'auto' (SLURM, TPU pods, …), or ADDRESS:PORT,PROCESSES,INDEX."
)
_AGAIN = "run the same command again to go on from the newest checkpoint."
flags.declare_key_flag("config")
flags.mark_flag_as_required("config")


def prepare(
    config: ConfigDict, workdir: epath.Path, notice: preemption.Notice, stack: contextlib.ExitStack
) -> Callable[[], None]:
    """What trains the run from its newest checkpoint to the end; `stack` closes what it opens.

    Raises:
      ValueError, TypeError, OSError: something in the config or in the workdir is wrong.
    """
    processes.join(_DISTRIBUTED.value)
    if jax.process_index():
        logging.set_verbosity(logging.ERROR)  # what is told of the run is told once
    checkpoints.check_kept(config.keep_newest, config.keep_every)
    setup.check_recipe(config)  # data, then the network, come after all that can be told without them
    resumes = checkpoints.has_steps(workdir)
    if not resumes:
        check_start(config)
    model, layout = ModelConfig(**config.model), Layout(make_mesh(config.mesh.fsdp))
    batches, reading = open_batches(config, model.image_size), reading_options(config.data)
    decided, shown, recipe = batches(reading=reading).state, first_rows(batches, reading), as_json(config)
    vgg = perceptual_network(config)
    training = starting_point(config, layout, resumes)
    data = decided | {"first frame": config.data.first} | vgg_digest(vgg)
    batch = batch_shapes(shown, data)
    check_divides(batch, config.accumulate, layout.mesh, STD_GROUP if config.weights.adversarial else 1)
    kept = {"keep_newest": config.keep_newest, "keep_every": config.keep_every}
    stack.enter_context(held(workdir))
    saved = stack.enter_context(checkpoints.TrainCheckpoints(workdir, **kept))
    state = loop.resume(training.state, saved, layout, data, recipe)
    saved.check_space(state)
    describe_run(workdir, recipe, {"generator": state.generator, "discriminator": state.discriminator})
    run = loop.Run(
        train_step=training.train_step,
        vgg=vgg,
        pictures=training.pictures,
        shown=shown,
        batch=batch,
        rows=config.batch_size * config.stage,
        batches=lambda done: stack.enter_context(contextlib.closing(batches(start_step=done, reading=reading))),
        data=data,
        recipe=recipe,
        schedule=loop.Schedule(config.steps, config.log_every, config.pictures_every, config.checkpoint_every),
        layout=layout,
        stop=notice,
        count_flops=functools.partial(step_flops, config, layout),
        trace_steps=_TRACE.value,
    )
    reporter = stack.enter_context(contextlib.closing(Reporter(workdir, int(state.step))))
    return functools.partial(loop.train, run, state, saved, reporter, model, setup.domains(config))


def run() -> None:
    """Trains, or says in one line why not."""
    notice = preemption.Notice()
    with contextlib.ExitStack() as stack:
        # ImportError: of a bucket without the extra gcs.
        with in_one_line(ValueError, TypeError, ImportError, ctrl_c=_AGAIN):
            if not _WORKDIR.value:
                raise ValueError("--workdir is empty: name a folder, or a gs:// path.")
            train = prepare(CONFIG.value, checkpoints.absolute(_WORKDIR.value), notice, stack)
        train()


def main(_: list[str]) -> None:
    settle_for_cpu(training=True)
    logging.set_verbosity(logging.WARNING)  # Orbax tells of its every step
    failed_writes.quiet()
    errors = FloatingPointError, BadRecord, OSError
    with processes.ending_on_errors(), in_one_line(*errors, ctrl_c=_AGAIN):
        try:
            run()
        except preemption.Preempted as notice:
            if not jax.process_index():
                print(notice, file=sys.stderr)
            sys.exit(preemption.EXIT_STATUS)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
