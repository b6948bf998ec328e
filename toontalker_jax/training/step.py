"""One training step, the same for both stages: generator, then discriminator on the same detached fakes."""

import collections
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from toontalker_jax import losses
from toontalker_jax.models.batches import deinterleave, interleave
from toontalker_jax.models.discriminator import STD_GROUP
from toontalker_jax.models.perceptual import VGG19, perceptual_loss
from toontalker_jax.models.pixels import unit_range
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training.optimizers import Params, follow
from toontalker_jax.training.sharding import Layout
from toontalker_jax.training.state import Networks, Optimizers, TrainState

Batch = Any  # PairBatch for stage 1, {"r2c": AnalogyBatch, "c2r": AnalogyBatch} for stage 2
Metrics = dict[str, jax.Array]
Images = Mapping[str, jax.Array]  # {domain: [N, S, S, 3] in [-1, 1]}


class StageOutput(NamedTuple):
    """What a stage's forward pass hands to the step."""

    terms: Metrics  # {"name" or "name/where": unweighted scalar}
    fakes: dict[str, jax.Array]  # {domain: generated pictures that its discriminator judges}
    reals: dict[str, jax.Array]  # {domain: pictures of the data set}
    still: Metrics  # {domain: the L1 of a result that stands still as the source does}: what learning has to beat
    pictures: dict[str, tuple[jax.Array, ...]]  # {name: columns of a picture grid}; costs nothing where unread


class Objective(NamedTuple):
    """The weights of the losses by name; a weight of 0 leaves the loss out of the computation."""

    weights: Mapping[str, float]
    vgg: VGG19 | None = None  # needed if "perceptual" is weighted
    remat: bool = False  # see ModelConfig

    def wants(self, name: str) -> bool:
        return self.weights[name] != 0

    def reconstruction(self, predictions: Images, sources: Images, targets: Images) -> Metrics:
        """The reconstruction losses that this objective wants, as name/domain; the source is to become the target."""
        terms = {}
        for domain, prediction in predictions.items():
            if self.wants("l1"):
                terms[f"l1/{domain}"] = losses.l1(prediction, targets[domain])
            if self.wants("image_gradient"):
                terms[f"image_gradient/{domain}"] = losses.image_gradient(prediction, targets[domain])
            if self.wants("change"):
                terms[f"change/{domain}"] = losses.change(prediction, sources[domain], targets[domain])
        if self.wants("perceptual"):
            images = (interleave([pictures[d] for d in predictions]) for pictures in (predictions, targets))
            errors = perceptual_loss(self.vgg, *images, remat=self.remat)
            sizes = [len(prediction) for prediction in predictions.values()]
            for domain, error in zip(predictions, deinterleave(errors, sizes), strict=True):
                terms[f"perceptual/{domain}"] = error.mean()
        return terms

    def total(self, terms: Metrics) -> jax.Array:
        return sum(self.weights[name.split("/")[0]] * term for name, term in terms.items())


Stage = Callable[[ToonTalker, Batch, Objective, nnx.Rngs | None], StageOutput]


def make_pictures(stage: Stage, networks: Networks) -> Callable[[Params, Batch], dict[str, jax.Array]]:
    """`pictures(generator parameters, batch) -> {name: [rows · S, columns · S, 3] in [-1, 1]}`: one row a sample."""

    def pictures(params: Params, batch: Batch) -> dict[str, jax.Array]:
        # A stage leaves out what no loss looks at; the adversarial one looks at every result.
        all_results = Objective(collections.defaultdict(float, adversarial=1.0))
        batch = jax.tree.map(unit_range, batch)
        output = stage(nnx.merge(networks.generator, params), batch, all_results, None)
        return {
            name: jnp.concatenate([jnp.concatenate(list(column), axis=0) for column in columns], axis=1)
            for name, columns in output.pictures.items()
        }

    return pictures


class StepOptions(NamedTuple):
    """How a step is taken, besides the network, the stage and the optimizers.

    Attributes:
      weights: of the losses by name, as in Objective.
      seed: of the run; with the step it decides all randomness.
      accumulate: parts that the batch is computed in, one after another: the same gradient in less memory, but sent
        between devices that many times. Rows that share a minibatch statistic stay together.
      ema_decay: of the average of the generator's parameters; 0: there is none.
      r1_gamma, r1_every: every so many steps the discriminators pay gamma / 2 · r1_every · E|∇D(real)|² (StyleGAN2's
        lazy R1 penalty); a gamma of 0: never.
    """

    weights: Mapping[str, float]
    seed: int
    accumulate: int = 1
    ema_decay: float = 0.0
    r1_gamma: float = 0.0
    r1_every: int = 16


class Gradients(NamedTuple):
    generator: Params
    discriminator: Params


def generator_loss(
    params: Params,
    judges: Params,
    batch: Batch,
    vgg: VGG19 | None,
    key: jax.Array,
    stage: Stage,
    networks: Networks,
    weights: Mapping[str, float],
) -> tuple[jax.Array, StageOutput]:
    """Weighted total of every loss that moves the generator, with the stage's output beside it."""
    model = nnx.merge(networks.generator, params)
    objective = Objective(weights, vgg, model.config.remat)
    output = stage(model, batch, objective, nnx.Rngs(key) if model.config.dropout else None)
    if objective.wants("adversarial"):
        judge = nnx.merge(networks.discriminator, judges)
        output.terms.update({f"adversarial/{d}": losses.adversarial(judge[d](x)) for d, x in output.fakes.items()})
    return objective.total(output.terms), output


def discriminator_loss(params: Params, output: StageOutput, networks: Networks) -> tuple[jax.Array, Metrics]:
    """Sum over domains of the discriminators' losses on the step's own fakes, detached."""
    judges = nnx.merge(networks.discriminator, params)
    fakes = jax.lax.stop_gradient(output.fakes)
    terms = {f"discriminator/{d}": losses.discriminator(*judges[d].both(output.reals[d], fakes[d])) for d in fakes}
    return sum(terms.values()), terms


def r1_penalty(params: Params, reals: Mapping[str, jax.Array], networks: Networks) -> tuple[jax.Array, Metrics]:
    """Sum over domains of E|∇D(real)|² (Mescheder et al., ICML 2018), with each domain's beside it."""
    judges = nnx.merge(networks.discriminator, params)
    slopes = {d: jax.grad(lambda x, d=d: judges[d](x).sum())(real) for d, real in reals.items()}
    terms = {d: jnp.square(slope).sum(axis=(1, 2, 3)).mean() for d, slope in slopes.items()}
    return sum(terms.values()), terms


def discriminator_gradient(
    state: TrainState, output: StageOutput, networks: Networks, options: StepOptions
) -> tuple[Params, Metrics]:
    """The gradient of the discriminators' losses, of the R1 penalty where it is due, and their terms."""
    gradient, terms = jax.grad(discriminator_loss, has_aux=True)(state.discriminator, output, networks)
    if not options.r1_gamma:
        return gradient, terms

    def with_penalty() -> tuple[Params, Metrics]:
        penalty, r1 = jax.grad(r1_penalty, has_aux=True)(state.discriminator, output.reals, networks)
        weight = options.r1_gamma / 2 * options.r1_every
        return jax.tree.map(lambda g, p: g + weight * p, gradient, penalty), r1

    gradient, r1 = jax.lax.cond(state.step % options.r1_every == 0, with_penalty, lambda: (gradient, state.r1))
    return gradient, terms | {f"r1/{d}": value for d, value in r1.items()}


def micro_batches(batch: Batch, parts: int, layout: Layout) -> Batch:
    """[B, …] → [parts, B / parts, …]: neighbours go together, in blocks of at most STD_GROUP, round the parts in turn.

    So every device's rows serve every part, without leaving it while each part has whole blocks on it.
    """

    def split(x: jax.Array) -> jax.Array:
        rows = x.shape[0] // parts
        block = math.gcd(rows, STD_GROUP)
        x = x.reshape(rows // block, parts, block, *x.shape[1:]).swapaxes(0, 1)
        return layout.rows_of_each(x.reshape(parts, rows, *x.shape[3:]))

    return jax.tree.map(split, batch)


def make_train_step(
    stage: Stage, networks: Networks, optimizers: Optimizers, options: StepOptions, layout: Layout
) -> Callable[[TrainState, Batch, VGG19 | None], tuple[TrainState, Metrics]]:
    """`train_step(state, batch, vgg) -> state, metrics`, pure. Randomness is a function of (seed, state.step).

    The perceptual network is an argument, since its parameters would otherwise be constants of the program.

    Metrics, all float32: every unweighted term by name, "loss" (their weighted sum), "gradient_norm" (before it is
    clipped), "still/<domain>", and where there is a discriminator "discriminator/<domain>", "r1/<domain>" (the last
    that was computed) and "gradient_norm/discriminator".
    """

    def gradients(state: TrainState, batch: Batch, vgg: VGG19 | None, key: jax.Array) -> tuple[Gradients, Metrics]:
        batch = jax.tree.map(unit_range, batch)
        (total, output), generator = jax.value_and_grad(generator_loss, has_aux=True)(
            state.generator, state.discriminator, batch, vgg, key, stage, networks, options.weights
        )
        metrics = {**output.terms, "loss": total, **{f"still/{d}": value for d, value in output.still.items()}}
        discriminator = {}
        if options.weights["adversarial"]:
            discriminator, terms = discriminator_gradient(state, output, networks, options)
            metrics |= terms
        return Gradients(generator, discriminator), jax.tree.map(jnp.float32, metrics)

    def accumulated(state: TrainState, batch: Batch, vgg: VGG19 | None, key: jax.Array) -> tuple[Gradients, Metrics]:
        if options.accumulate == 1:
            return gradients(state, batch, vgg, key)

        def part(total: Gradients, number_and_rows: tuple[jax.Array, Batch]) -> tuple[Gradients, Metrics]:
            number, rows = number_and_rows
            gradient, metrics = gradients(state, rows, vgg, jax.random.fold_in(key, number))
            return jax.tree.map(lambda t, g: t + g / options.accumulate, total, layout.scatter(gradient)), metrics

        zeros = layout.scatter(jax.tree.map(jnp.zeros_like, Gradients(state.generator, state.discriminator)))
        parts = jnp.arange(options.accumulate), micro_batches(batch, options.accumulate, layout)
        total, metrics = jax.lax.scan(part, zeros, parts)
        return total, jax.tree.map(lambda values: values.mean(axis=0), metrics)

    def train_step(state: TrainState, batch: Batch, vgg: VGG19 | None) -> tuple[TrainState, Metrics]:
        whole = state._replace(
            generator=layout.gather(state.generator), discriminator=layout.gather(state.discriminator)
        )
        key = jax.random.fold_in(jax.random.key(options.seed), state.step)
        with layout.told():
            gradient, metrics = accumulated(whole, batch, vgg, key)
        gradient = layout.scatter(gradient)
        metrics["gradient_norm"] = optax.tree.norm(gradient.generator)
        if options.weights["adversarial"]:
            metrics["gradient_norm/discriminator"] = optax.tree.norm(gradient.discriminator)
        state = state._replace(r1={d: metrics[f"r1/{d}"] for d in state.r1})
        return updated(state, gradient, optimizers, options.ema_decay), metrics

    return train_step


def updated(state: TrainState, gradient: Gradients, optimizers: Optimizers, ema_decay: float) -> TrainState:
    """The state after the optimizers' step along the gradients."""
    steps, generator_optimizer = optimizers.generator.update(gradient.generator, state.generator_optimizer)
    generator = optax.apply_updates(state.generator, steps)
    ema = follow(state.generator_ema, generator, state.step, ema_decay) if ema_decay else {}
    steps, discriminator_optimizer = optimizers.discriminator.update(
        gradient.discriminator, state.discriminator_optimizer
    )
    return TrainState(
        step=state.step + 1,
        generator=generator,
        generator_ema=ema,
        generator_optimizer=generator_optimizer,
        discriminator=optax.apply_updates(state.discriminator, steps),
        discriminator_optimizer=discriminator_optimizer,
        r1=state.r1,
    )
