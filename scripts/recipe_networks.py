"""The networks that a recipe names, and what their step computes."""

import dataclasses
import shlex

import jax
import jax.numpy as jnp
from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from toontalker_jax import checkpoints
from toontalker_jax.convert.vgg import load_vgg19
from toontalker_jax.evaluation.flops import count_flops
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training import setup
from toontalker_jax.training.ahead_of_time import abstract_step
from toontalker_jax.training.optimizers import Params
from toontalker_jax.training.sharding import Layout
from toontalker_jax.training.state import start_stage2

_OF_THE_RUN = {"dtype", "dropout", "remat"}  # how a network is computed, not what it is
_OF_THE_START = {"flow_init_scale", "mask_init_bias", "difference_init"}  # they are in its parameters


def fresh_model(config: ConfigDict) -> ToonTalker:
    """The recipe's network with random parameters."""
    return ToonTalker(ModelConfig(**config.model), setup.domains(config), rngs=nnx.Rngs(config.seed))


def check_start(config: ConfigDict) -> None:
    """Raises ValueError for stage 2 without `config.init`; reads nothing."""
    if config.stage == 2 and not config.init:
        raise ValueError("stage 2 starts from stage 1: name its workdir or checkpoint by --config.init=PATH.")


def initial_networks(config: ConfigDict) -> tuple[ToonTalker, Params]:
    """What the run starts from: `config.init`, or random parameters (stage 1 only).

    The model, and the discriminators, {domain: …}: empty if none are wanted or `config.init` has none. Stage 2 after
    stage 1 has copies for the cartoon domain.

    Raises:
      ValueError: as `check_start`, or `config.init` is another network than the recipe's.
    """
    check_start(config)
    if not config.init:
        return fresh_model(config), {}
    how = {name: config.model[name] for name in _OF_THE_RUN}
    model, judges = checkpoints.load_networks(config.init, discriminators=config.weights.adversarial != 0, **how)
    wanted = dataclasses.asdict(ModelConfig(**config.model))
    has = {name: value for name, value in dataclasses.asdict(model.config).items() if name not in _OF_THE_START}
    differing = {name: value for name, value in has.items() if value != wanted[name]}
    if differing:
        settings = shlex.join(f"--config.model.{name}={value}" for name, value in differing.items())
        raise ValueError(f"config.init = {config.init} is another network than the recipe's: it has {settings}.")
    if config.weights.adversarial and not judges:
        logging.warning("config.init = %s has no discriminators: they start anew.", config.init)
    if config.stage == 2 and "cartoon" not in model.domains:
        # Shared buffers could not be donated.
        return start_stage2(model), judges and judges | {"cartoon": jax.tree.map(jnp.copy, judges["real"])}
    if set(model.domains) != set(setup.domains(config)):
        found, wants = ", ".join(sorted(model.domains)), ", ".join(setup.domains(config))
        raise ValueError(f"config.init = {config.init} has the domains {found}; stage {config.stage} trains {wants}.")
    return model, judges


def starting_point(config: ConfigDict, layout: Layout, resumes: bool) -> setup.Setup:
    """What the run starts with; if it `resumes`, shapes alone: its checkpoint has the rest, and `init` is not needed.

    Raises: as `initial_networks` and `setup.set_up`.
    """
    if resumes:
        return setup.abstract_setup(config, lambda: fresh_model(config), layout)
    model, discriminators = initial_networks(config)
    return setup.set_up(config, model, layout, discriminators)


def perceptual_network(config: ConfigDict) -> VGG19 | None:
    if config.weights.perceptual == 0:
        return None
    if not config.vgg:
        raise ValueError("weights.perceptual is set: name torchvision's vgg19 file by --config.vgg=FILE, or 'random'.")
    if config.vgg == "random":
        logging.warning("perceptual loss: UNTRAINED random VGG19 features, because config.vgg = 'random'.")
        return VGG19(dtype=config.model.dtype, rngs=nnx.Rngs(config.seed))
    return load_vgg19(config.vgg, dtype=config.model.dtype)


def vgg_digest(vgg: VGG19 | None) -> dict[str, int]:
    """{"vgg": what tells one perceptual network from another, wherever its file lies}, if there is one."""
    return {"vgg": sum(checkpoints.digests(nnx.to_pure_dict(nnx.state(vgg))).values()) % 2**32} if vgg else {}


def step_flops(config: ConfigDict, layout: Layout) -> int:
    """Of a step of the global batch, without the lazy R1 penalty and what `remat` computes again."""
    plain = config.copy_and_resolve_references()
    plain.model.remat, plain.r1.gamma = False, 0.0
    step = abstract_step(plain, layout)
    return count_flops(step.function, *step.arguments)
