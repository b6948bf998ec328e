"""One training step, the same for both stages: generator, then discriminator on the same detached fakes."""

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from toontalker_jax import losses
from toontalker_jax.models.perceptual import VGG19, perceptual_loss
from toontalker_jax.models.pixels import unit_range
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.state import Networks, Optimizers, Params, TrainState

Batch = Any  # PairBatch for stage 1, {"r2c": AnalogyBatch, "c2r": AnalogyBatch} for stage 2
Metrics = dict[str, jax.Array]


class StageOutput(NamedTuple):
    """What a stage's forward pass hands to the step."""

    terms: Metrics  # {"name" or "name/where": unweighted scalar}
    fakes: dict[str, jax.Array]  # {domain: generated pictures that its discriminator judges}
    reals: dict[str, jax.Array]  # {domain: pictures of the data set}
    pictures: dict[str, tuple[jax.Array, ...]]  # {name: columns of a picture grid}; costs nothing where unread


class Objective(NamedTuple):
    """The weights of the losses by name; a weight of 0 leaves the loss out of the computation."""

    weights: Mapping[str, float]
    vgg: VGG19 | None = None  # needed if "perceptual" is weighted

    def wants(self, name: str) -> bool:
        return self.weights[name] != 0

    def reconstruction(self, prediction: jax.Array, target: jax.Array, where: str) -> Metrics:
        """The reconstruction losses that this objective wants, named name/where."""
        terms = {}
        if self.wants("l1"):
            terms[f"l1/{where}"] = losses.l1(prediction, target)
        if self.wants("image_gradient"):
            terms[f"image_gradient/{where}"] = losses.image_gradient(prediction, target)
        if self.wants("perceptual"):
            terms[f"perceptual/{where}"] = perceptual_loss(self.vgg, prediction, target)
        return terms

    def total(self, terms: Metrics) -> jax.Array:
        return sum(self.weights[name.split("/")[0]] * term for name, term in terms.items())


Stage = Callable[[ToonTalker, Batch, Objective, nnx.Rngs | None], StageOutput]


def make_pictures(stage: Stage, networks: Networks) -> Callable[[Params, Batch], dict[str, jax.Array]]:
    """`pictures(generator parameters, batch) -> {name: [rows · S, columns · S, 3] in [-1, 1]}`: one row a sample."""

    def pictures(params: Params, batch: Batch) -> dict[str, jax.Array]:
        no_losses = Objective(collections.defaultdict(float))
        batch = jax.tree.map(unit_range, batch)
        output = stage(nnx.merge(networks.generator, params), batch, no_losses, None)
        return {
            name: jnp.concatenate([jnp.concatenate(list(column), axis=0) for column in columns], axis=1)
            for name, columns in output.pictures.items()
        }

    return pictures


def generator_loss(
    params: Params, state: TrainState, batch: Batch, stage: Stage, networks: Networks, objective: Objective, seed: int
) -> tuple[jax.Array, StageOutput]:
    """Weighted total of every loss that moves the generator, with the stage's output beside it."""
    model = nnx.merge(networks.generator, params)
    rngs = nnx.Rngs(jax.random.fold_in(jax.random.key(seed), state.step)) if model.config.dropout else None
    output = stage(model, batch, objective, rngs)
    if objective.wants("adversarial"):
        judges = nnx.merge(networks.discriminator, state.discriminator)
        output.terms.update({f"adversarial/{d}": losses.adversarial(judges[d](x)) for d, x in output.fakes.items()})
    return objective.total(output.terms), output


def discriminator_loss(params: Params, output: StageOutput, networks: Networks) -> tuple[jax.Array, Metrics]:
    """Sum over domains of the discriminators' losses on the step's own fakes, detached."""
    judges = nnx.merge(networks.discriminator, params)
    fakes = jax.lax.stop_gradient(output.fakes)
    terms = {f"discriminator/{d}": losses.discriminator(judges[d](output.reals[d]), judges[d](fakes[d])) for d in fakes}
    return sum(terms.values()), terms


def make_train_step(
    stage: Stage, networks: Networks, optimizers: Optimizers, weights: Mapping[str, float], seed: int
) -> Callable[[TrainState, Batch, VGG19 | None], tuple[TrainState, Metrics]]:
    """`train_step(state, batch, vgg) -> state, metrics`, pure. Randomness is a function of (seed, state.step).

    The perceptual network is an argument, since its parameters would otherwise be constants of the program.

    Metrics: every unweighted term by name, "loss" (their weighted sum), "gradient_norm", and
    "discriminator/<domain>" where there is one.
    """

    def train_step(state: TrainState, batch: Batch, vgg: VGG19 | None) -> tuple[TrainState, Metrics]:
        objective, batch = Objective(weights, vgg), jax.tree.map(unit_range, batch)
        (total, output), gradient = jax.value_and_grad(generator_loss, has_aux=True)(
            state.generator, state, batch, stage, networks, objective, seed
        )
        updates, generator_optimizer = optimizers.generator.update(gradient, state.generator_optimizer)
        metrics = {**output.terms, "loss": total, "gradient_norm": optax.tree.norm(gradient)}
        discriminator, discriminator_optimizer = state.discriminator, state.discriminator_optimizer
        if objective.wants("adversarial"):
            gradient, terms = jax.grad(discriminator_loss, has_aux=True)(discriminator, output, networks)
            steps, discriminator_optimizer = optimizers.discriminator.update(gradient, discriminator_optimizer)
            discriminator = optax.apply_updates(discriminator, steps)
            metrics.update(terms)
        state = TrainState(
            step=state.step + 1,
            generator=optax.apply_updates(state.generator, updates),
            generator_optimizer=generator_optimizer,
            discriminator=discriminator,
            discriminator_optimizer=discriminator_optimizer,
        )
        return state, jax.tree.map(jnp.float32, metrics)

    return train_step
