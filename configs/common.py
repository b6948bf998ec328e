"""Blocks that the recipes share. A recipe says only what it changes."""

import dataclasses

import ml_collections

from toontalker_jax.models.config import ModelConfig

# Parts of a model whose learning rate may have a factor: scale2 and shift2 are SFT's last convolutions.
PARTS = ("appearance_encoder", "motion_encoder", "motion_base", "backward_transformer", "to_styles", "generator")
PARTS += ("source_query", "driving_query", "scale2", "shift2")


def parse_arg(arg: str | None, **defaults: str | int) -> ml_collections.ConfigDict:
    """The defaults with what stands behind a config's file name, ":stage=2,recipe=modern", changed.

    Raises:
      ValueError: an unknown key, or a value that does not fit the default's type.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, _, value = item.partition("=")
        if key not in defaults:
            raise ValueError(f"config argument {item!r}: know {', '.join(f'{k}={v}' for k, v in defaults.items())}.")
        values[key] = type(defaults[key])(value)
    return ml_collections.ConfigDict(values)


def recipe(arg: str | None) -> str:
    """"paper" or "modern", from a config's argument "recipe=…". Raises ValueError for another."""
    name = parse_arg(arg, recipe="paper").recipe
    if name not in ("paper", "modern"):
        raise ValueError(f"recipe={name}: know paper and modern.")
    return name


def base() -> ml_collections.ConfigDict:
    """Every key that training reads, with the values that most recipes share."""
    config = ml_collections.ConfigDict()
    config.stage = 1
    config.seed = 0
    # Stage 2: the stage-1 workdir or checkpoint; stage 1: "" or one to go on from. Networks alone are taken: of a
    # workdir with the discriminators, of a checkpoint without.
    config.init = ""
    config.steps = 0
    config.batch_size = 0  # in all; stage 2 takes this many tuples in each direction
    config.accumulate = 1  # parts that a batch is computed in, one after another, to save memory
    config.mesh = {"fsdp": 1}  # devices that share one copy of the training state; divides their number
    config.model = dataclasses.asdict(ModelConfig())  # the released network
    config.data = {"real": "", "cartoon": "", "real_split": "", "cartoon_split": ""}
    config.data.first, config.data.last = 0, 0  # of the real clips only frames first … last - 1; 0, 0 means all
    config.data.min_distance, config.data.max_distance = 1, 0  # between the frames of a pair; 0: no maximum
    config.data.identity_balanced = False  # an epoch shows each identity once, by one of its clips, not each clip
    config.data.driver_weights = {"real": 1.0, "cartoon": 1.0}  # stage 2: shares of the tuples that each domain drives
    config.data.flip, config.data.colour_jitter = False, 0.0  # augmentations, data_pipelines/augmentation.py
    config.data.max_bad_records = 100  # frames that cannot be read and are skipped by a process, before it stops
    config.data.workers, config.data.threads = 0, 2  # decoding processes of a process (0: itself), threads of each
    # Factors of the losses (losses.py), 0: not computed. image_gradient: L1 of finite differences; change: L1 over what
    # moves between the frames; perceptual: VGG19, needs vgg; adversarial: brings discriminators; analogy: stage 2's.
    config.weights = {"l1": 1.0, "image_gradient": 0.0, "change": 0.0}
    config.weights.update(perceptual=0.0, adversarial=0.0, analogy=0.0)
    config.vgg = ""  # torchvision's vgg19 file, or "random" for untrained features; read if perceptual is weighted
    config.optimizer = {"learning_rate": 0.0, "warmup_steps": 0, "decay": "none", "beta1": 0.0, "beta2": 0.99}
    # decay: none or cosine, to 0 at the last step. discriminator_optimizer has the same keys, and is set by itself.
    # The rate is meant for reference_batch and scales with (batch_size / reference_batch)^batch_exponent.
    config.optimizer.update(reference_batch=64, batch_exponent=0.0, clip_norm=0.0)  # 0: the gradient is not clipped
    config.discriminator_optimizer = config.optimizer.copy_and_resolve_references()
    # Factors on the learning rate of parts of the model, of both domains' alike. A part that it lacks has to have 1.
    config.optimizer.multipliers = dict.fromkeys(PARTS, 1.0)
    config.discriminator_optimizer.multipliers = {}
    config.ema_images = 0  # half-life of the average of the generator's parameters, in pairs or tuples; 0: none
    config.r1 = {"gamma": 0.0, "every": 16}  # StyleGAN2's lazy gradient penalty; 0: none
    config.keep_newest, config.keep_every = 2, 0  # checkpoints; the latter in addition for good, in steps; 0: none
    config.log_every, config.pictures_every, config.checkpoint_every = 50, 1000, 1000
    return config


def small_network(config: ml_collections.ConfigDict) -> None:
    """A network and an optimizer for 64×64 on two CPU cores, 2.6 M parameters a domain.

    Differs from the official network where so small a run demands it: losses on image gradients and on what changes in
    place of the perceptual and adversarial ones; Adam with beta1 = 0.9, at a higher rate where weights are equalised;
    an initialisation that starts by warping, with small flows, and lets differences of motion alone reach the
    generator; the sampler's consistent corner convention; SFT in the three finest stages, which at 64 px begin at 16
    (at 64 px itself a map is the picture's colours, and no mouth can be told from them); no dropout.
    """
    config.model.update(
        image_size=64,
        width=96,
        motion_slots=8,
        heads=4,
        channel_base=1024,
        channel_cap=96,
        backward_resolutions=(4, 8, 16),
        dropout=0.0,
        sft_from=16,
        align_corners=True,
        flow_init_scale=0.1,
        mask_init_bias=1.5,
        difference_init=True,
    )
    config.weights.image_gradient, config.weights.change = 1.0, 1.0
    config.optimizer.update(learning_rate=1e-3, beta1=0.9, decay="cosine", warmup_steps=100)
    config.discriminator_optimizer.learning_rate = 1e-3  # for those who set weights.adversarial
    # scale2 and shift2 lie inside the generator: plain convolutions, whose weights are not equalised.
    multipliers = {"motion_encoder": 5.0, "appearance_encoder": 3.0, "generator": 3.0, "to_styles": 3.0}
    config.optimizer.multipliers.update(multipliers, scale2=0.1, shift2=0.1)


def lia_adam(config: ml_collections.ConfigDict, learning_rate: float) -> None:
    """LIA's Adam: the ratios come from its lazy regularisation every 4 (G) and 16 (D) steps, which it never applies."""
    for key, ratio in (("optimizer", 4 / 5), ("discriminator_optimizer", 16 / 17)):
        config[key].update(learning_rate=learning_rate * ratio, beta1=0.0, beta2=0.99**ratio)


def modern(config: ml_collections.ConfigDict) -> None:
    """What StyleGAN2 and later practice add to a paper recipe (`recipe=modern`); nothing here has trained at full size.

    bfloat16 arithmetic; the lazy R1 penalty, which the recipe's Adam is set up for; the generator's average, which is
    what checkpoints are loaded as; a warm-up, and rates that grow with the square root of the batch.
    """
    config.model.dtype = "bfloat16"
    config.r1.gamma = 10.0
    config.ema_images = 10_000
    for key in ("optimizer", "discriminator_optimizer"):
        config[key].update(warmup_steps=1000, batch_exponent=0.5, reference_batch=config.batch_size)
