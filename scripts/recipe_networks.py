"""The networks that a recipe names."""

from absl import logging
from flax import nnx
from ml_collections import ConfigDict

from toontalker_jax import checkpoints
from toontalker_jax.convert.vgg import load_vgg19
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.perceptual import VGG19
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.training import setup
from toontalker_jax.training.state import start_stage2


def initial_model(config: ConfigDict) -> ToonTalker:
    """The network that the run starts from: `config.init`, or fresh weights (stage 1 only)."""
    domains = setup.domains(config)
    if config.init:
        how = {name: config.model[name] for name in ("dtype", "dropout", "remat")}
        model = checkpoints.load_model(config.init, **how)
        return start_stage2(model) if config.stage == 2 and "cartoon" not in model.domains else model
    if config.stage == 2:
        raise ValueError("stage 2 starts from stage 1: name its workdir or checkpoint by --config.init=PATH.")
    return ToonTalker(ModelConfig(**config.model), domains, rngs=nnx.Rngs(config.seed))


def perceptual_network(config: ConfigDict) -> VGG19 | None:
    if config.weights.perceptual == 0:
        return None
    if not config.vgg:
        raise ValueError("weights.perceptual is set: name torchvision's vgg19 file by --config.vgg=FILE, or 'random'.")
    if config.vgg == "random":
        logging.warning("perceptual loss: UNTRAINED random VGG19 features, because config.vgg = 'random'.")
        return VGG19(dtype=config.model.dtype, rngs=nnx.Rngs(config.seed))
    return load_vgg19(config.vgg, dtype=config.model.dtype)
