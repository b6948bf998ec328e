"""From a recipe's config to what trains: here its keys about the network's training are read."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from toontalker_jax.models.config import DOMAINS
from toontalker_jax.models.discriminator import STD_GROUP
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.optimizers import Params, make_optimizer
from toontalker_jax.training.sharding import Layout, check_batch
from toontalker_jax.training.stage1 import stage1
from toontalker_jax.training.stage2 import stage2
from toontalker_jax.training.state import Networks, Optimizers, TrainState, create_state
from toontalker_jax.training.step import Batch, Stage, StepOptions, make_pictures, make_train_step


class Setup(NamedTuple):
    """See `make_train_step` and `make_pictures`; `state` is that of step 0, where it was made."""

    train_step: Callable
    pictures: Callable
    state: TrainState
    stage: Stage
    networks: Networks


def domains(config: ConfigDict) -> tuple[str, ...]:
    """What a network of the config's stage consists of. Raises ValueError for another stage than 1 and 2."""
    if config.stage not in (1, 2):
        raise ValueError(f"config.stage = {config.stage}: must be 1 or 2.")
    return DOMAINS[: config.stage]


def step_options(config: ConfigDict) -> StepOptions:
    """Raises ValueError for numbers out of range."""
    weights = {f"weights.{name}": weight for name, weight in config.weights.items()}
    for name, value in {"ema_images": config.ema_images, "r1.gamma": config.r1.gamma, **weights}.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value}: must be a number of at least 0.")
    if not any(weights.values()):
        raise ValueError("all weights are 0: there is no loss to train by.")
    if config.weights.analogy and config.stage == 1:
        raise ValueError(f"weights.analogy = {config.weights.analogy} in stage 1: only stage 2 has two domains.")
    if config.r1.every < 1:
        raise ValueError(f"r1.every = {config.r1.every}: must be at least 1.")
    if config.r1.gamma and not config.weights.adversarial:
        raise ValueError(f"r1.gamma = {config.r1.gamma}, but weights.adversarial = 0: there is no discriminator.")
    return StepOptions(
        weights=config.weights.to_dict(),
        seed=config.seed,
        accumulate=config.accumulate,
        # A step of stage 2 has batch_size tuples in each of two directions.
        ema_decay=0.5 ** (config.stage * config.batch_size / config.ema_images) if config.ema_images else 0.0,
        r1_gamma=config.r1.gamma,
        r1_every=config.r1.every,
    )


def check_recipe(config: ConfigDict) -> None:
    """Raises ValueError for settings that no network can be trained by; makes none, so it takes no time."""
    domains(config)
    step_options(config)
    check_training(config)
    for key in ("optimizer", "discriminator_optimizer"):
        _optimizer(config, key)


def check_training(config: ConfigDict) -> None:
    """Raises ValueError for settings with which nothing, or not what is meant, would be learned."""
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed = {config.seed}: must be at least 0 and below 2**32.")
    for name in ("log_every", "pictures_every", "checkpoint_every"):
        if config[name] < 1:
            raise ValueError(f"{name} = {config[name]}: must be at least 1; more than steps for never.")
    used = ("optimizer", "discriminator_optimizer") if config.weights.adversarial else ("optimizer",)
    for name in used:
        if not 0 < config[name].learning_rate < math.inf:
            raise ValueError(f"{name}.learning_rate = {config[name].learning_rate}: must be a number above 0.")
    if config.model.dtype == "float16":
        raise ValueError("model.dtype = 'float16': gradients would vanish in it; train in bfloat16 or float32.")


def set_up(config: ConfigDict, model: ToonTalker, layout: Layout, discriminators: Params | None = None) -> Setup:
    """What a run of the recipe starts with, from `model` and from `discriminators` {domain: …}, or fresh ones.

    Raises:
      ValueError: settings that do not fit each other or the devices.
    """
    options = step_options(config)
    check_training(config)
    check_batch(config.batch_size, config.accumulate, layout.mesh)
    rows = config.batch_size // (config.accumulate * layout.mesh.size)
    if config.weights.adversarial and layout.mesh.size > 1 and rows % STD_GROUP:
        logging.warning(
            "%d rows a device and part: the discriminator's minibatch statistic takes groups of %d, which now span "
            "devices and cost communication.", rows, STD_GROUP
        )  # fmt: skip
    optimizers = Optimizers(*(_optimizer(config, key) for key in ("optimizer", "discriminator_optimizer")))
    networks, state = create_state(
        model,
        optimizers,
        adversarial=config.weights.adversarial != 0,
        rngs=nnx.Rngs(config.seed + 1),
        discriminators=discriminators,
        ema=options.ema_decay != 0,
        r1=options.r1_gamma != 0,
    )
    stage = stage1 if config.stage == 1 else stage2
    train_step = make_train_step(stage, networks, optimizers, options, layout)
    return Setup(train_step, make_pictures(stage, networks), state, stage, networks)


def _optimizer(config: ConfigDict, key: str) -> optax.GradientTransformation:
    try:
        return make_optimizer(config[key].to_dict(), config.steps, config.batch_size)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def abstract_batch(config: ConfigDict, image_size: int) -> Batch:
    """The shapes and types of a global batch of the config's stage."""
    picture = jax.ShapeDtypeStruct((config.batch_size, image_size, image_size, 3), np.uint8)
    if config.stage == 1:
        return {"source": picture, "driving": picture}
    return {name: {key: picture for key in ("reference", "driving", "source")} for name in ("r2c", "c2r")}


def abstract_setup(config: ConfigDict, make_model: Callable[[], ToonTalker], layout: Layout) -> Setup:
    """`set_up` without a single number computed: the state has shapes and types only."""
    made: dict[str, Any] = {}

    def state() -> TrainState:
        made["setup"] = set_up(config, make_model(), layout)
        return made["setup"].state

    shapes = jax.eval_shape(state)
    return made["setup"]._replace(state=shapes)
