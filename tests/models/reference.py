"""The reference network's weights in our parameters, by `golden/recipe.py` and the conversion's name tables."""

import json
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from tests.golden import recipe
from toontalker_jax.convert import names
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.toontalker import ToonTalker

GOLDEN = Path(__file__).parent.parent / "golden"
SALTS = {"real": "gen_real", "cartoon": "gen"}


def manifest(size: int) -> dict[str, tuple[int, ...]]:
    shapes = json.loads((GOLDEN / "manifest.json").read_text())[str(size)]
    return {name: tuple(shape) for name, shape in shapes.items()}


def entries(config: ModelConfig, domains: tuple[str, ...]) -> list[tuple[str, names.Entry]]:
    """(salt, entry) of every parameter of a network with these domains."""
    table = [(SALTS["real"], entry) for entry in names.query_table()]
    return table + [(SALTS[d], entry) for d in domains for entry in names.domain_table(config, d)]


def flat_parameters(model: ToonTalker) -> dict[str, nnx.Variable]:
    """{"/"-joined path: variable}."""
    return {"/".join(map(str, path)): value for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def image(size: int, seed: int) -> jax.Array:
    """[1, S, S, 3]."""
    return jax.numpy.asarray(recipe.image(size, seed).transpose(1, 2, 0)[None])


def network(size: int, domains: tuple[str, ...] = ("real", "cartoon")) -> ToonTalker:
    """The official network of this size with the recipe's weights."""
    config = ModelConfig(image_size=size)
    model = nnx.eval_shape(lambda: ToonTalker(config, domains, rngs=nnx.Rngs(0)))
    parameters, shapes = flat_parameters(model), manifest(size)
    for salt, entry in entries(config, domains):
        variable = parameters.pop(entry.path)
        value = names.read(entry, recipe.values(entry.official, shapes[entry.official], salt))
        assert value.shape == variable.shape, (entry, value.shape, variable.shape)
        variable.set_value(jax.numpy.asarray(np.ascontiguousarray(value)))
    assert not parameters, f"not filled: {sorted(parameters)}"
    return model
