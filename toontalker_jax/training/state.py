"""What a run carries from step to step, and how it starts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from toontalker_jax.models.discriminator import Discriminator
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.optimizers import Params


class TrainState(NamedTuple):
    """Parameters are pure dicts. What a run does not use is empty."""

    step: jax.Array  # [] int32, steps done
    generator: Params
    generator_ema: Params  # the average of the generator's parameters over the last steps
    generator_optimizer: optax.OptState
    discriminator: Params  # {domain: …}
    discriminator_optimizer: optax.OptState
    r1: dict[str, jax.Array]  # {domain: the R1 penalty when it was last computed}


class Networks(NamedTuple):
    """The static halves: graph definitions to merge with the parameters of a `TrainState`."""

    generator: nnx.GraphDef
    discriminator: nnx.GraphDef


class Optimizers(NamedTuple):
    generator: optax.GradientTransformation
    discriminator: optax.GradientTransformation


def split(model: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """A model's graph definition and its parameters as a pure dict."""
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def create_state(
    model: ToonTalker,
    optimizers: Optimizers,
    *,
    adversarial: bool,
    rngs: nnx.Rngs,
    discriminators: Params | None = None,
    ema: bool = False,
    r1: bool = False,
) -> tuple[Networks, TrainState]:
    """The state at step 0 of a run that starts from `model`.

    Args:
      adversarial: with a discriminator a domain: those of `discriminators`, or fresh ones.
      ema: with an average of the model's parameters.
      r1: with a place for the discriminators' penalties.

    Raises:
      ValueError: `discriminators` have not the parameters that the model's config and domains ask for.
    """
    domains = tuple(model.domains) if adversarial else ()
    fresh = nnx.Dict({d: Discriminator(model.config, rngs=rngs) for d in domains})
    (generator_def, generator), (discriminator_def, discriminator) = split(model), split(fresh)
    if adversarial and discriminators:
        _check_same_shapes(discriminators, discriminator)
        discriminator = discriminators
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=generator,
        generator_ema=jax.tree.map(jnp.copy, generator) if ema else {},
        generator_optimizer=optimizers.generator.init(generator),
        discriminator=discriminator,
        discriminator_optimizer=optimizers.discriminator.init(discriminator),
        r1={d: jnp.zeros(()) for d in domains if r1},
    )
    return Networks(generator_def, discriminator_def), state


def _check_same_shapes(given: Params, wanted: Params) -> None:
    given_shapes, wanted_shapes = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (given, wanted))
    )
    for name in sorted(given_shapes.keys() | wanted_shapes.keys()):
        has, needs = given_shapes.get(name, "none"), wanted_shapes.get(name, "none")
        if has != needs:
            raise ValueError(
                f"discriminators: {name} has the shape {has}, the model's config asks for {needs}: leave them out for "
                "fresh ones, or take the config that they were trained with."
            )


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
