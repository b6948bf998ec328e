"""Networks to measure."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from toontalker_jax.models.config import DOMAINS, ModelConfig
from toontalker_jax.models.toontalker import ToonTalker, abstract_network


def random_network(config: ModelConfig, domains: tuple[str, ...] = DOMAINS) -> ToonTalker:
    """A network in normal numbers of numpy: jax.random would compile a kernel a shape."""
    random = np.random.default_rng(0)
    graph, state = abstract_network(config, domains)
    filled = jax.tree.map(lambda x: jnp.asarray(random.standard_normal(x.shape, np.float32) * 0.1), state)
    return nnx.merge(graph, filled)
