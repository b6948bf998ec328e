"""Settings that have to stand before the first import of JAX, and the small network that several tests share."""

import dataclasses
import importlib.metadata
import os
import tempfile

# Tests run on the CPU unless somebody asks for another platform.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUM_CPU_DEVICES"] = "8"  # for meshes; by itself everything runs on the first
# A test compiles far longer than it computes: these make XLA compile a training step six times faster on the CPU.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # jaxlib 0.11 ends the process at a flag it does not know
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
# Programs are compiled once for all test processes, and the scripts that they start. The first one makes the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.TemporaryDirectory(prefix="toontalker-jax-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _programs.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # hundreds are small, and each start has them all

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import script_server
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.toontalker import abstract_network

TINY = ModelConfig(image_size=64, width=16, motion_slots=2, heads=2, channel_base=512, channel_cap=16)
# For tests of what stands around the network: without transformers a script starts and compiles in two thirds the time.
LEAN = dataclasses.replace(TINY, query="mlp", backward_resolutions=())

SLOWEST = ("scripts", "training", "models", "convert")


def pytest_collection_modifyitems(items):
    """Folders with files that take minutes first: nothing would run beside the last one."""
    items.sort(key=lambda item: [*SLOWEST, item.path.parent.name].index(item.path.parent.name))


@pytest.fixture(scope="session")
def tiny_model():
    """`tiny_model(domains, seed=0, config=TINY)`: a network of random kernels, drawn by numpy.

    Its own initialisation would compile a random-number kernel for each shape, many seconds in all. With 0.6 for a
    deviation its pictures stay within [-1, 1] for the most part and follow the driver by some levels of 256.
    """

    def make(domains=("real", "cartoon"), seed=0, config=TINY):
        random = np.random.default_rng(seed)

        def fill(path, leaf):
            if leaf.ndim > 1:
                return jnp.asarray(random.normal(0, 0.6, leaf.shape), leaf.dtype)
            name = jax.tree_util.keystr(path)
            return jnp.full(leaf.shape, float("scale'" in name or "modulation" in name), leaf.dtype)

        graph, state = abstract_network(config, domains)
        return nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, state))

    return make


@pytest.fixture(scope="session")
def run_script():
    """`run_script(name, arguments…)`: a script of ours in a process of its own."""
    return script_server.run
