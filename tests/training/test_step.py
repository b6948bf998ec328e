"""The parts of a step that toys can show: the R1 penalty, how a batch is parted, what stays in float32."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import puppets, stage1, stage2
from tests.conftest import TINY
from tests.training.test_optimizers import ADAM
from toontalker_jax.models.encoders import AppearanceEncoder
from toontalker_jax.training import setup
from toontalker_jax.training.optimizers import make_optimizer
from toontalker_jax.training.sharding import Layout, check_batch, make_mesh
from toontalker_jax.training.state import Networks, Optimizers, TrainState, split
from toontalker_jax.training.step import (
    Gradients,
    StageOutput,
    StepOptions,
    discriminator_gradient,
    micro_batches,
    updated,
)

OPTIONS = StepOptions({"adversarial": 1.0}, seed=0, r1_gamma=10.0, r1_every=4)


class Plane(nnx.Module):
    """A discriminator whose slope is its weight."""

    def __init__(self):
        self.weight = nnx.Param(jnp.full((2, 2, 3), 0.5))

    def __call__(self, image):
        return (image * self.weight[...]).sum((1, 2, 3))

    def both(self, first, second):
        return self(first), self(second)


def judged(step, options):
    """The discriminators' gradient and terms at a step, the last penalty having been 7."""
    graph, params = split(nnx.Dict(real=Plane()))
    state = TrainState(**{name: {} for name in TrainState._fields})
    state = state._replace(step=jnp.int32(step), discriminator=params, r1={"real": jnp.float32(7)})
    pictures = {"real": jax.random.normal(jax.random.key(0), (4, 2, 2, 3))}
    output = StageOutput({}, fakes=pictures, reals={"real": pictures["real"] + 1}, still={}, pictures={})
    gradient, terms = discriminator_gradient(state, output, Networks(None, graph), options)
    return gradient["real"]["weight"], terms


def test_the_penalty_comes_every_few_steps_and_weighs_accordingly():
    plain, _ = judged(8, OPTIONS._replace(r1_gamma=0.0))
    due, terms = judged(8, OPTIONS)
    assert terms["r1/real"] == pytest.approx(12 * 0.5**2)
    np.testing.assert_allclose(due - plain, 10 / 2 * 4 * 2 * np.full((2, 2, 3), 0.5), rtol=1e-5)
    between, terms = judged(9, OPTIONS)
    np.testing.assert_array_equal(between, plain)
    assert terms["r1/real"] == 7


def test_parts_take_whole_groups_from_every_device():
    layout = Layout(make_mesh(devices=jax.devices()[:2]))
    parts = jax.jit(lambda rows: micro_batches({"x": rows}, 2, layout)["x"])(np.arange(16)[:, None])[..., 0]
    np.testing.assert_array_equal(parts, [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]])
    pairs = jax.jit(lambda rows: micro_batches(rows, 2, layout))(np.arange(12)[:, None])[..., 0]
    np.testing.assert_array_equal(pairs, [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]])


def test_the_average_is_kept_beside_the_parameters():
    optimizers = Optimizers(*(make_optimizer(ADAM, 100, 64) for _ in range(2)))
    params = {"w": jnp.ones(3)}
    state = TrainState(**{name: {} for name in TrainState._fields})._replace(
        step=jnp.int32(10**6),
        generator=params,
        generator_ema={"w": jnp.zeros(3)},
        generator_optimizer=optimizers.generator.init(params),
        discriminator_optimizer=optimizers.discriminator.init({}),
    )
    after = updated(state, Gradients({"w": jnp.ones(3)}, {}), optimizers, 0.9)
    np.testing.assert_allclose(after.generator["w"], 1 - 2e-3, rtol=1e-5)
    np.testing.assert_allclose(after.generator_ema["w"], 0.1 * (1 - 2e-3), rtol=1e-5)


def small(recipe):
    """A recipe with the tests' small network."""
    config = recipe.get_config("recipe=modern")
    config.model.update(dataclasses.asdict(dataclasses.replace(TINY, dtype="bfloat16", remat=True)))
    config.weights.perceptual, config.batch_size = 0.0, 8
    return config


def test_the_modern_recipe_computes_in_bfloat16_and_remembers_in_float32(tiny_model):
    config = small(stage1)
    layout = Layout(make_mesh(devices=jax.devices()[:1]))
    domains = setup.domains(config)
    model = dataclasses.replace(TINY, dtype="bfloat16", remat=True)
    made = setup.abstract_setup(config, lambda: tiny_model(domains, config=model), layout)
    batch = setup.abstract_batch(config, 64)
    state, metrics = jax.eval_shape(made.train_step, made.state, batch, None)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a.shape == b.shape, state, made.state)))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state)} == {"float32", "int32"}
    assert {str(leaf.dtype) for leaf in metrics.values()} == {"float32"}
    assert set(state.r1) == set(domains) and state.generator_ema.keys() == state.generator.keys()


def test_what_is_computed_again_is_the_same():
    def gradient(remat):
        encoder = AppearanceEncoder(dataclasses.replace(TINY, channel_cap=4, remat=remat), rngs=nnx.Rngs(0))
        graph, params = nnx.split(encoder)
        image = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
        loss = jax.grad(lambda params: sum(jnp.square(x).mean() for x in nnx.merge(graph, params)(image).values()))
        return str(jax.make_jaxpr(loss)(params)), jax.jit(loss)(params)

    (once, kept), (twice, again) = gradient(False), gradient(True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), kept, again)
    assert twice.count("conv_general_dilated[") > once.count("conv_general_dilated[")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_images": -1}, "ema_images = -1"),
        ({"r1.every": 0}, "r1.every = 0"),
        ({"r1.gamma": 1.0}, "weights.adversarial = 0"),
        ({"stage": 3}, "config.stage = 3"),
        ({"pictures_every": 0}, "pictures_every = 0"),
        ({"log_every": 0}, "log_every = 0"),
        ({"checkpoint_every": -1}, "checkpoint_every = -1"),
        ({"optimizer.learning_rate": 0.0}, "optimizer.learning_rate = 0.0"),
        ({"discriminator_optimizer.learning_rate": 0.0, "weights.adversarial": 1.0}, "discriminator_optimizer.learni"),
        ({"model.dtype": "float16"}, "train in bfloat16 or float32"),
        ({"r1.gamma": math.nan, "weights.adversarial": 1.0}, "r1.gamma = nan"),
        ({"weights.l1": -1.0}, "weights.l1 = -1.0"),
        ({"weights.change": math.inf}, "weights.change = inf"),
        ({f"weights.{name}": 0.0 for name in ("l1", "image_gradient", "change")}, "all weights are 0"),
        ({"weights.analogy": 20.0}, "weights.analogy = 20.0 in stage 1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(changes, message):
    config = puppets.get_config("stage=1")
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        setup.domains(config)
        setup.step_options(config)
        setup.check_training(config)


def test_the_average_has_its_half_life_in_rows_of_a_step_in_both_directions():
    for stage, recipe in ((1, stage1.get_config("recipe=modern")), (2, stage2.get_config("recipe=modern"))):
        steps = recipe.ema_images / (stage * recipe.batch_size)
        assert setup.step_options(recipe).ema_decay**steps == pytest.approx(0.5)


def test_an_optimizers_mistake_names_the_optimizer(tiny_model):
    config = puppets.get_config("stage=1")
    config.discriminator_optimizer.beta2 = 1.0
    with pytest.raises(ValueError, match="discriminator_optimizer: beta2 = 1.0: must be"):
        setup.set_up(config, tiny_model(("real",)), Layout(make_mesh(devices=jax.devices()[:1])))


def test_the_recipes_pass_these_checks():
    for recipe in (puppets.get_config("stage=1"), puppets.get_config("stage=2"), stage1.get_config("recipe=modern")):
        recipe.weights.adversarial = 1.0
        setup.check_training(recipe)


@pytest.mark.parametrize(("rows", "accumulate"), [(8, 3), (12, 1), (8, 0)])
def test_a_batch_that_cannot_be_shared_out_is_refused(rows, accumulate):
    with pytest.raises(ValueError, match=f"a batch of {rows} rows .* accumulate = {accumulate} × 8 devices"):
        check_batch(rows, accumulate, make_mesh())


def test_a_mesh_needs_devices_in_whole_groups():
    with pytest.raises(ValueError, match="mesh.fsdp = 3: must divide the number of devices, 8"):
        make_mesh(fsdp=3)
