"""Orbax on disk: inference checkpoints and training checkpoints. Paths may be local or in a bucket.

An inference checkpoint is a folder:
  model.json    what to build: format, ModelConfig, domains, versions of the packages that wrote it
  params/       the parameters, as nested dicts (Orbax)
  digests.json  a sum over the bits of each

A training workdir keeps its steps in `checkpoints/<step>/`, each with the state, the same model.json contents, digests
and the caller's metadata; steps that turned out damaged lie in `damaged/<step>/`. `load_model` reads either;
`read_config` looks at what it would load.
"""

from toontalker_jax.checkpoints.digests import digests
from toontalker_jax.checkpoints.format import Mismatch, absolute, describe, package_versions
from toontalker_jax.checkpoints.inference import check_free, load_model, load_networks, read_config, save_model
from toontalker_jax.checkpoints.training import Restored, TrainCheckpoints, check_kept, has_steps

__all__ = [
    "Mismatch",
    "Restored",
    "TrainCheckpoints",
    "absolute",
    "check_free",
    "check_kept",
    "describe",
    "digests",
    "has_steps",
    "load_model",
    "load_networks",
    "package_versions",
    "read_config",
    "save_model",
]
