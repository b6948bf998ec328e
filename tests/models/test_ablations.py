"""The networks of the paper's Table 7: without query transformers, without the backward transformer, without SFT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import puppets
from toontalker_jax.checkpoints import load_model, save_model
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.motion import query
from toontalker_jax.models.toontalker import ToonTalker, abstract_network
from toontalker_jax.training.optimizers import make_optimizer

TINY = {"image_size": 64, "width": 16, "motion_slots": 3, "heads": 2, "channel_base": 256, "channel_cap": 16}
ABLATED = {"query": "mlp", "backward_resolutions": (), "sft_from": 0}


def test_the_mlp_follows_its_formula():
    mlp = query(ModelConfig(**TINY, query="mlp"), rngs=nnx.Rngs(0))
    for layer in (mlp.base, mlp.descriptor, mlp.out):  # zero as made
        layer.bias[...] = jax.random.normal(jax.random.key(2), layer.bias.shape)
    base, descriptor = (jax.random.normal(jax.random.key(i), (n, 16)) for i, n in enumerate((3, 2)))
    found = mlp.project(base, descriptor)
    assert found.shape == (2, 3, 16) and found.dtype == jnp.float32

    def affine(layer, x):
        return x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])

    for n, f in enumerate(np.asarray(descriptor)):
        for k, p in enumerate(np.asarray(base)):
            hidden = np.maximum(affine(mlp.base, p) + affine(mlp.descriptor, f), 0)
            np.testing.assert_allclose(found[n, k], affine(mlp.out, hidden), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "sees_others"), [("transformer", True), ("mlp", False)])
def test_motion_tokens_see_each_other_in_the_transformer_alone(kind, sees_others):
    layer = query(ModelConfig(**TINY, query=kind), rngs=nnx.Rngs(0))
    base, descriptor = (jax.random.normal(jax.random.key(i), (n, 16)) for i, n in enumerate((3, 1)))
    change = layer.project(base.at[1].multiply(-1.0), descriptor) - layer.project(base, descriptor)
    assert np.abs(change[0, 1]).max() > 1e-2
    assert (np.abs(change[0, 0]).max() > 1e-4) == sees_others


def test_without_a_backward_transformer_motion_reaches_the_styles_as_it_is():
    _, state = abstract_network(ModelConfig(**TINY, backward_resolutions=()), ("real",))
    assert not [path for path, _ in nnx.to_flat_state(state) if "backward_transformer" in path]
    model = ToonTalker(ModelConfig(**TINY, backward_resolutions=()), ("real",), rngs=nnx.Rngs(0))
    w = jax.random.normal(jax.random.key(0), (2, 3, 16))
    np.testing.assert_array_equal(model.domains["real"].backward_transformer(w, ()), w)


def test_every_parameter_of_the_ablated_network_learns_and_is_stored(tmp_path):
    model = ToonTalker(ModelConfig(**TINY | ABLATED), ("real",), rngs=nnx.Rngs(0))
    source, driving = jax.random.uniform(jax.random.key(0), (2, 2, 64, 64, 3), minval=-1)

    @nnx.jit
    def gradients(model):
        def loss(model):
            return jnp.abs(model(source, driving, "real", nnx.Rngs(0)).image - driving).mean()

        return nnx.grad(loss)(model)

    dead = {path for path, g in nnx.to_flat_state(gradients(model)) if not np.abs(np.asarray(g)).max() > 0}
    unread = ("domains", "real", "appearance_encoder", "blocks", 3)  # makes the map of 4 px, for T_B alone
    assert {path for path in dead if path[:5] != unread and path[-1] != "noise_weight"} == set()
    assert {path[:5] for path in dead} >= {unread}
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    jax.tree.map(np.testing.assert_array_equal, nnx.state(loaded, nnx.Param), nnx.state(model, nnx.Param))


def test_the_puppets_recipe_takes_all_of_them_by_its_flags():
    recipe = puppets.get_config("stage=2")
    recipe.model.update(ABLATED)
    _, state = abstract_network(ModelConfig(**recipe.model), ("real", "cartoon"))
    params = nnx.to_pure_dict(nnx.filter_state(state, nnx.Param))

    def start():
        return jax.eval_shape(make_optimizer(recipe.optimizer, recipe.steps, recipe.batch_size).init, params)

    with pytest.raises(ValueError, match="multipliers: scale2, shift2 is none of"):
        start()
    recipe.optimizer.multipliers.update(scale2=1.0, shift2=1.0)
    assert jax.tree.leaves(start())
