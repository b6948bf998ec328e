"""What a run carries from step to step, and how it starts."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from toontalker_jax.models.discriminator import Discriminator
from toontalker_jax.models.toontalker import ToonTalker

Params = Any  # a pure dict of float32 arrays


class TrainState(NamedTuple):
    """Parameters are pure dicts; `discriminator` is {domain: …}, empty without an adversarial loss."""

    step: jax.Array  # [] int32, steps done
    generator: Params
    generator_optimizer: optax.OptState
    discriminator: Params
    discriminator_optimizer: optax.OptState


class Networks(NamedTuple):
    """The static halves: graph definitions to merge with the parameters of a `TrainState`."""

    generator: nnx.GraphDef
    discriminator: nnx.GraphDef


class Optimizers(NamedTuple):
    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def learning_rate(config: Mapping[str, Any], steps: int) -> optax.Schedule:
    """`learning_rate`, reached linearly over `warmup_steps`; `decay` is "none" or "cosine" (to 0 at `steps`)."""
    peak, warmup = config["learning_rate"], config["warmup_steps"]
    if warmup >= steps:
        raise ValueError(f"warmup_steps = {warmup} must be below the number of steps = {steps}.")
    if config["decay"] == "none":
        rest = optax.constant_schedule(peak)
    elif config["decay"] == "cosine":
        rest = optax.cosine_decay_schedule(peak, steps - warmup)
    else:
        raise ValueError(f"decay = {config['decay']!r}: must be 'none' or 'cosine'.")
    return optax.join_schedules([optax.linear_schedule(peak / (warmup + 1), peak, warmup), rest], [warmup])


def make_optimizer(config: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Adam from the config keys learning_rate, warmup_steps, decay, beta1, beta2, multipliers.

    `multipliers` maps names of a model's parts ("motion_encoder": in every domain) to factors on their learning rate.

    Raises:
      ValueError: missing or unknown keys, a bad schedule, or (at `init`) a multiplier whose part the model lacks.
    """
    known = {"learning_rate", "warmup_steps", "decay", "beta1", "beta2", "multipliers"}
    if set(config) != known:
        raise ValueError(f"optimizer config has keys {sorted(config)}, expected {sorted(known)}.")
    adam = optax.adam(learning_rate(config, steps), b1=config["beta1"], b2=config["beta2"])
    return optax.chain(adam, scale_parts(dict(config["multipliers"]))) if config["multipliers"] else adam


def scale_parts(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of every parameter whose path holds one of the names."""

    def init(params: Params) -> optax.EmptyState:
        paths = [_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        parts = set().union(*paths)
        if paths and (lost := sorted(set(multipliers) - parts)):
            raise ValueError(f"optimizer.multipliers: {', '.join(lost)} is none of {', '.join(sorted(parts))}.")
        return optax.EmptyState()

    def update(updates: Params, state: optax.EmptyState, params: Params | None = None):
        del params
        factor = jax.tree_util.tree_map_with_path(
            lambda path, _: math.prod(multipliers.get(name, 1.0) for name in _names(path)), updates
        )
        return jax.tree.map(lambda leaf, by: leaf * by, updates, factor), state

    return optax.GradientTransformation(init, update)


def _names(path: tuple) -> set[str]:
    return {str(key.key) for key in path}


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """A model's graph definition and its parameters as a pure dict."""
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def create_state(
    model: ToonTalker, optimizers: Optimizers, *, adversarial: bool, rngs: nnx.Rngs
) -> tuple[Networks, TrainState]:
    """The state at step 0 of a run that starts from `model`, with a fresh discriminator a domain if wanted."""
    domains = tuple(model.domains) if adversarial else ()
    discriminators = nnx.Dict({d: Discriminator(model.config, rngs=rngs) for d in domains})
    (generator_def, generator), (discriminator_def, discriminator) = split(model), split(discriminators)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        generator_optimizer=optimizers.generator.init(generator),
        discriminator=discriminator,
        discriminator_optimizer=optimizers.discriminator.init(discriminator),
    )
    return Networks(generator_def, discriminator_def), state


def start_stage2(stage1: ToonTalker) -> ToonTalker:
    """A two-domain network whose cartoon parts are copies of the real domain's (paper, training).

    Raises:
      ValueError: `stage1` is not a real-domain network.
    """
    if tuple(stage1.domains) != ("real",):
        raise ValueError(f"stage 2 starts from a network with the domain ('real',), not {tuple(stage1.domains)}.")
    model = nnx.clone(stage1)
    # arrays=True: copies, not shared buffers, or donating the state would fail.
    model.domains = nnx.Dict({d: nnx.clone(stage1.domains["real"], arrays=True) for d in ("real", "cartoon")})
    return model
