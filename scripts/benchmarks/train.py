"""Speed of a recipe's training step, against the machine's peak, and the share of each part of it.

Pictures are random numbers that lie on the devices, weights are random too. Every step is waited for. The peak is that
of large convolutions and matrix products in the recipe's dtype, measured between the steps. Parts are measured by
leaving them out, each time as a program of its own (`programs`), in turn with the step; with --loader the recipe's own
data are read beside the steps, and what these then take longer is the wait for data. A comparison of settings is a loop
of the shell: for dtype in float32 bfloat16; do … --config.model.dtype=$dtype; done
"""

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from scripts.benchmarks.clock import in_turn, seconds
from scripts.benchmarks.networks import random_network
from scripts.benchmarks.rates import peak_rate
from scripts.recipe import CONFIG
from scripts.recipe_data import open_batches, reading_options
from scripts.recipe_networks import step_flops
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.training import loop, setup
from toontalker_jax.training.optimizers import Params
from toontalker_jax.training.sharding import Layout, make_mesh, place, shard_batch
from toontalker_jax.training.state import Optimizers, TrainState
from toontalker_jax.training.step import Batch, make_train_step

_STEPS = flags.DEFINE_integer("steps", 10, "train: timed steps.", lower_bound=1)
_PARTS = flags.DEFINE_bool("parts", True, "train: also measure the parts of a step.")
_LOADER = flags.DEFINE_bool("loader", False, "train: also measure the wait for the recipe's data.")

# Part of a step: the program without it. Each program leaves out what those before it do, too.
PARTS = {
    "optimizer": "gradients",
    "perceptual": "without_perceptual",
    "discriminator": "without_adversarial",
    "generator_backward": "forward",
}


class Training(NamedTuple):
    """What is measured, on the devices. The state is of step 0; a step takes it away."""

    config: ConfigDict
    layout: Layout
    setup: setup.Setup
    state: TrainState
    batch: Batch
    vgg: VGG19 | None


def prepare(config: ConfigDict) -> Training:
    """Raises ValueError for settings that do not fit each other or the devices."""
    layout = Layout(make_mesh(config.mesh.fsdp))
    model = random_network(ModelConfig(**config.model), setup.domains(config))
    training = setup.set_up(config, model, layout)
    random = np.random.default_rng(0)
    batch = jax.tree.map(
        lambda x: random.integers(0, 256, x.shape, x.dtype), setup.abstract_batch(config, config.model.image_size)
    )
    vgg = VGG19(dtype=config.model.dtype, rngs=nnx.Rngs(0)) if config.weights.perceptual else None
    state = place(training.state, layout.slices(training.state))
    return Training(config, layout, training, state, place(batch, layout.rows), place(vgg, layout.whole))


def keep_gradient() -> optax.GradientTransformation:
    """An optimizer that moves nothing, and whose state is the gradient."""

    def update(gradient: Params, state: Any, params: Params | None = None) -> tuple[Params, Params]:
        del state, params
        return jax.tree.map(jnp.zeros_like, gradient), gradient

    return optax.GradientTransformation(lambda params: (), update)


def without(training: Training, names: tuple[str, ...], *, backward: bool = True) -> Callable:
    """`program(state, batch, vgg)`: a step that updates nothing, without the losses of these names.

    It returns gradients and losses, or losses alone: then XLA drops everything that only the gradients need.
    """
    options = setup.step_options(training.config)
    weights = {name: 0.0 if name in names else weight for name, weight in options.weights.items()}
    options = options._replace(weights=weights, ema_decay=0.0, r1_gamma=0.0)
    (_, _, _, stage, networks), layout = training.setup, training.layout
    step = make_train_step(stage, networks, Optimizers(keep_gradient(), keep_gradient()), options, layout)

    def program(state: TrainState, batch: Batch, vgg: VGG19 | None) -> Any:
        state = state._replace(generator_ema={}, generator_optimizer=(), discriminator_optimizer=(), r1={})
        after, metrics = step(state if weights["adversarial"] else state._replace(discriminator={}), batch, vgg)
        metrics = {name: value for name, value in metrics.items() if not name.startswith("gradient_norm")}
        gradients = after.generator_optimizer, after.discriminator_optimizer
        return (layout.scatter(gradients), layout.gather(metrics)) if backward else layout.gather(metrics)

    return program


def programs(training: Training) -> dict[str, Callable]:
    """The step without its update, then without the perceptual loss, without the discriminators, without gradients."""
    found, names = {"gradients": without(training, ())}, ()
    for name in ("perceptual", "adversarial"):
        if training.config.weights[name]:
            names += (name,)
            found[f"without_{name}"] = without(training, names)
    return found | {"forward": without(training, names, backward=False)}


def shares(times: Mapping[str, float], data_wait: float | None) -> dict[str, float | None]:
    """Of the time of a step with the wait for its data: each part's, None for what the recipe does not have or was not
    measured. They sum to 1.

    Args:
      times: of "step", on a batch that stays, and of the programs.
      data_wait: the share of that wait.
    """
    left, whole, found = times["step"], times["step"] / (1 - (data_wait or 0)), {}
    for part, program in PARTS.items():
        found[part] = (left - times[program]) / whole if program in times else None
        left = times.get(program, left)
    return found | {"generator_forward": left / whole, "data_wait": data_wait}


class Stepper:
    """Takes the steps of a compiled program, one a call."""

    def __init__(self, training: Training):
        self.training, self.state, self.batch = training, training.state, training.batch
        start = time.perf_counter()
        step = loop.jitted(training.setup.train_step, self.state, training.layout)
        self.program = step.lower(self.state, self.batch, training.vgg).compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self) -> Any:
        self.state, metrics = self.program(self.state, self.batch, self.training.vgg)
        return self.state, metrics

    def loaded(self, batches: Any) -> Callable[[], Any]:
        """A function: a step, while the next batch is fetched from the loader and sent to the devices."""

        def step() -> Any:
            done = self()
            self.batch = shard_batch(next(batches), self.training.layout.mesh)
            return done, self.batch

        return step

    def r1_seconds(self) -> float:
        """Of a step that pays the lazy penalty: the median of three."""
        times = []
        for _ in range(3):
            self.state = self.state._replace(step=place(np.int32(0), self.training.layout.whole))
            jax.block_until_ready(self.state)
            times.append(seconds(self))
        return statistics.median(times)

    def memory(self) -> dict[str, float | None]:
        """GiB: the devices' peak so far, the program's own account of one device, this process's peak on the host."""
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
        account = self.program.memory_analysis()
        return {
            "device_peak_gib": None if None in peaks else max(peaks) / 2**30,
            "program_arguments_gib": account.argument_size_in_bytes / 2**30,
            "program_temporaries_gib": account.temp_size_in_bytes / 2**30,
            "host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }


def measure_speed(training: Training, stepper: Stepper, flops: int) -> dict[str, Any]:
    """Steps, parts and the peak in turn."""
    config = training.config
    functions: dict[str, Callable] = {"step": stepper}
    if _PARTS.value:
        for name, program in programs(training).items():
            compiled = jax.jit(program).lower(stepper.state, training.batch, training.vgg).compile()
            functions[name] = lambda run=compiled: run(stepper.state, training.batch, training.vgg)
    peaks, rate = [], peak_rate(config.model.dtype, training.layout)
    functions["peak"] = lambda: peaks.append(rate())
    times = in_turn(functions, _STEPS.value)
    medians = {name: statistics.median(values) for name, values in times.items() if name != "peak"}
    used = [flops / t / peak for t, peak in zip(times["step"], peaks[1:], strict=True)]
    rows = config.batch_size * (1 if config.stage == 1 else 2)
    return {
        "pairs_per_s" if config.stage == 1 else "tuples_per_s": rows / medians["step"],
        "step_s": medians["step"],
        "step_s_range": [min(times["step"]), max(times["step"])],
        "step_with_r1_s": stepper.r1_seconds() if config.r1.gamma else None,
        "step_gflop": flops / 1e9,
        "peak_gflop_per_s": statistics.median(peaks[1:]) / 1e9,
        "utilisation": statistics.median(used),
        "programs_s": medians,
    }


def data_wait(stepper: Stepper) -> dict[str, float]:
    """Steps with the recipe's data and with a batch that stays, in turn."""
    config = stepper.training.config
    batches = open_batches(config, config.model.image_size)(reading=reading_options(config.data))
    functions = {"with_data_s": stepper.loaded(batches), "without_s": stepper}
    medians = {name: statistics.median(values) for name, values in in_turn(functions, _STEPS.value).items()}
    batches.close()
    return medians | {"share": 1 - medians["without_s"] / medians["with_data_s"]}


def measure() -> dict[str, Any]:
    """The report."""
    if CONFIG.value is None:
        raise ValueError("name the recipe: --config=configs/…")
    config = CONFIG.value
    training = prepare(config)
    flops = step_flops(config, training.layout)
    stepper = Stepper(training)
    _, metrics = jax.block_until_ready(stepper())
    if not np.isfinite(loss := float(metrics["loss"])):
        raise ValueError(f"the loss of the first step is {loss}: the numbers measured would mean nothing.")
    memory, speed = stepper.memory(), measure_speed(training, stepper, flops)
    wait = data_wait(stepper) if _LOADER.value else None
    return {
        "stage": config.stage,
        "dtype": config.model.dtype,
        "image_size": config.model.image_size,
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "remat": config.model.remat,
        "mesh": dict(training.layout.mesh.shape),
        "processes": jax.process_count(),
        "parameters": sum(x.size for x in jax.tree.leaves((stepper.state.generator, stepper.state.discriminator))),
        "compile_s": stepper.compile_seconds,
        "memory": memory,
        **speed,
        "shares": shares(speed["programs_s"], wait and wait["share"]) if _PARTS.value else None,
        "data_wait": wait,
    }
