"""The reference network's weights (`golden/recipe.py`) in our parameters, by the conversion."""

import json
from pathlib import Path

import jax
import numpy as np

from tests.golden import recipe
from toontalker_jax.convert import names
from toontalker_jax.convert.convert import KINDS, convert
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


def image(size: int, seed: int) -> jax.Array:
    """[1, S, S, 3]."""
    return jax.numpy.asarray(recipe.image(size, seed).transpose(1, 2, 0)[None])


def network(size: int, domains: tuple[str, ...] = ("real", "cartoon")) -> ToonTalker:
    """The official network of this size with the recipe's weights: a file of the official format, converted."""
    shapes, gains = manifest(size), names.blur_kernels(ModelConfig(image_size=size))
    blur = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    states = {
        domain: {
            name: gains[name] * blur if name in gains else recipe.values(name, shape, SALTS[domain])
            for name, shape in shapes.items()
        }
        for domain in domains
    }
    return convert({KINDS["cross-domain" if len(domains) > 1 else "in-domain"][d]: states[d] for d in domains}).model
