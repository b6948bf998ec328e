"""Which loss reaches which parameters, what stage 2 starts from, and that a step learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.conftest import TINY
from tests.training.test_optimizers import ADAM
from toontalker_jax.training import state as training_state
from toontalker_jax.training.optimizers import make_optimizer
from toontalker_jax.training.sharding import Layout, make_mesh, place
from toontalker_jax.training.stage1 import stage1
from toontalker_jax.training.stage2 import stage2
from toontalker_jax.training.step import StepOptions, generator_loss, make_pictures, make_train_step

WEIGHTS = {"l1": 0.0, "image_gradient": 0.0, "change": 0.0, "perceptual": 0.0, "adversarial": 0.0, "analogy": 0.0}


def one_device():
    return Layout(make_mesh(devices=jax.devices()[:1]))


def images(seed, n=2):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 64, 64, 3)).astype(np.float32)


def analogy_batch(seed):
    return {key: images(3 * seed + i) for i, key in enumerate(("reference", "driving", "source"))}


@pytest.fixture(scope="module")
def stage1_run(tiny_model):
    """(train step, state) of stage 1 with a faint adversarial loss. Compiled once for every test that takes a step."""
    optimizers = training_state.Optimizers(*(make_optimizer(ADAM, 100, 2) for _ in range(2)))
    networks, state = training_state.create_state(tiny_model(("real",)), optimizers, adversarial=True, rngs=nnx.Rngs(1))
    weights = WEIGHTS | {"l1": 1.0, "image_gradient": 1.0, "adversarial": 0.01}
    step = jax.jit(make_train_step(stage1, networks, optimizers, StepOptions(weights, 0), one_device()))
    return step, place(state, one_device().whole)  # as it comes back: elsewhere the second step would compile again


def test_discriminators_of_another_network_are_refused(stage1_run, tiny_model):
    optimizers = training_state.Optimizers(*(make_optimizer(ADAM, 100, 2) for _ in range(2)))
    known = stage1_run[1].discriminator

    def start(discriminators, adversarial=True):
        model, rngs = tiny_model(("real",)), nnx.Rngs(2)
        settings = dict(adversarial=adversarial, rngs=rngs, discriminators=discriminators)
        return training_state.create_state(model, optimizers, **settings)[1].discriminator

    assert start(known) is known and start(known, adversarial=False) == {}
    with pytest.raises(ValueError, match=r"cartoon/.* has the shape \(.*\), the model's config asks for none"):
        start(known | {"cartoon": known["real"]})
    wider = jax.tree.map(lambda x: jnp.zeros((*x.shape, 1)), known)
    with pytest.raises(ValueError, match="real/.* has the shape .* asks for .*: leave them out"):
        start(wider)


def nonzero(gradient):
    """The parameter groups with a gradient: the query transformers, and each domain's parts."""
    names = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        keys = [str(key.key) for key in path]
        if jnp.any(leaf):
            names.add("/".join(keys[:3] if keys[0] == "domains" else keys[:1]))
    return names


PARTS = ("appearance_encoder", "motion_encoder", "motion_base", "backward_transformer", "to_styles", "generator")


def parts(domain):
    return {f"domains/{domain}/{part}" for part in PARTS}


QUERIES = {"source_query", "driving_query"}


@pytest.fixture(scope="module")
def batches():
    return {"r2c": analogy_batch(0), "c2r": analogy_batch(1)}


@pytest.fixture(scope="module")
def gradient_groups(tiny_model, batches):
    """`groups(name)`: the parameter groups that the loss term `name` of stage 2 reaches. One program for all terms."""
    optimizers = training_state.Optimizers(*(make_optimizer(ADAM, 100, 2) for _ in range(2)))
    model = tiny_model(config=dataclasses.replace(TINY, dropout=0.0))  # random numbers would only cost compile time
    networks, state = training_state.create_state(model, optimizers, adversarial=True, rngs=nnx.Rngs(1))
    weights = WEIGHTS | {"l1": 1.0, "analogy": 1.0, "adversarial": 1.0}

    def selected(params, which):
        key = jax.random.key(0)
        _, output = generator_loss(params, state.discriminator, batches, None, key, stage2, networks, weights)
        assert set(output.terms) == set(which)
        return sum(which[name] * term for name, term in output.terms.items())

    gradient = jax.jit(jax.grad(selected))
    kinds = {"l1": ("real", "cartoon"), "analogy": ("r2c", "c2r"), "adversarial": ("real", "cartoon")}
    names = [f"{kind}/{where}" for kind, wheres in kinds.items() for where in wheres]

    def groups(wanted):
        return nonzero(gradient(state.generator, {name: jnp.float32(name == wanted) for name in names}))

    return groups


def test_a_reconstruction_moves_its_own_domain_and_the_shared_queries(gradient_groups):
    assert gradient_groups("l1/real") == parts("real") | QUERIES
    assert gradient_groups("l1/cartoon") == parts("cartoon") | QUERIES


def test_the_analogy_moves_the_sources_network_and_the_drivers_motion(gradient_groups):
    driver = {"r2c": "real", "c2r": "cartoon"}
    for name, target in (("r2c", "cartoon"), ("c2r", "real")):
        motion = {f"domains/{driver[name]}/motion_encoder", f"domains/{driver[name]}/motion_base"}
        assert gradient_groups(f"analogy/{name}") == parts(target) | QUERIES | motion


def test_the_adversarial_loss_reaches_the_cross_domain_generator(gradient_groups):
    motion = {"domains/real/motion_encoder", "domains/real/motion_base"}
    assert gradient_groups("adversarial/cartoon") == parts("cartoon") | QUERIES | motion


def test_the_discriminator_trains_on_the_steps_own_fakes(stage1_run):
    step, state = stage1_run
    after, metrics = step(state, {"source": images(0), "driving": images(1)}, None)
    terms = {"l1/real", "image_gradient/real", "adversarial/real", "discriminator/real"}
    assert set(metrics) == terms | {"loss", "gradient_norm", "gradient_norm/discriminator", "still/real"}
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), state.discriminator, after.discriminator)
    assert all(jax.tree.leaves(changed))
    assert int(after.step) == 1


def test_the_pictures_of_stage_2_show_each_transfer_even_where_no_loss_looks_at_it(tiny_model, batches):
    optimizers = training_state.Optimizers(*(make_optimizer(ADAM, 100, 2) for _ in range(2)))
    networks, state = training_state.create_state(tiny_model(), optimizers, adversarial=False, rngs=nnx.Rngs(1))
    shapes = jax.eval_shape(make_pictures(stage2, networks), state.generator, batches)
    assert {name: grid.shape for name, grid in shapes.items()} == {
        f"{name}_reference_driving_reconstruction_source_result": (2 * 64, 5 * 64, 3) for name in ("r2c", "c2r")
    }


def test_a_missing_weight_is_an_error(tiny_model):
    model = tiny_model(("real",))
    optimizers = training_state.Optimizers(*(make_optimizer(ADAM, 100, 2) for _ in range(2)))
    networks, state = training_state.create_state(model, optimizers, adversarial=False, rngs=nnx.Rngs(1))
    step = make_train_step(stage1, networks, optimizers, StepOptions({"l1": 1.0}, 0), one_device())
    with pytest.raises(KeyError, match="image_gradient"):
        jax.eval_shape(step, state, {"source": images(0), "driving": images(1)}, None)


def test_stage2_starts_as_the_real_domain(tiny_model):
    model = tiny_model(("real",))
    both = training_state.start_stage2(model)
    assert set(both.domains) == {"real", "cartoon"}
    copies = [nnx.to_pure_dict(nnx.state(both.domains[d])) for d in ("real", "cartoon")]
    original = nnx.to_pure_dict(nnx.state(model.domains["real"]))
    for copy in copies:
        jax.tree.map(np.testing.assert_array_equal, copy, original)
    pointers = [{leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(copy)} for copy in copies]
    assert not pointers[0] & pointers[1]  # shared buffers could not be donated
    assert tuple(model.domains) == ("real",)
    with pytest.raises(ValueError, match="not .*cartoon"):
        training_state.start_stage2(both)


def test_a_tiny_run_lowers_its_loss(stage1_run):
    step, state = stage1_run
    y, x = np.mgrid[0:64, 0:64] / 63
    picture = np.stack([np.sin(6 * x), np.cos(5 * y), x * y], axis=-1).astype(np.float32)[None]
    batch = {"source": np.concatenate([picture, -picture]), "driving": np.concatenate([-picture, picture])}
    losses = []
    for _ in range(12):
        state, metrics = step(state, batch, None)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0], losses


def test_steps_are_reproducible_and_dropout_follows_the_step(stage1_run):
    step, state = stage1_run
    batch = {"source": images(0), "driving": images(1)}
    one, again = (step(state, batch, None)[1]["l1/real"] for _ in range(2))
    later = step(state._replace(step=state.step + 7), batch, None)[1]["l1/real"]
    assert one == again and one != later
