"""The embedded puppets at 64×64: both stages on two CPU cores, the recipe of the shipped network.

    python scripts/prepare_data.py puppets --output data/puppets
    python scripts/train.py --config=configs/puppets.py:stage=1 --workdir=runs/puppets1
    python scripts/train.py --config=configs/puppets.py:stage=2 --workdir=runs/puppets2 --config.init=runs/puppets1

Differs from the paper's recipe where two cores demand it (measured, see README): no perceptual network and no
discriminator but an image-gradient loss; Adam with beta1 = 0.9; small initial flow heads and a mask that starts by
warping; the sampler's consistent corner convention; no dropout.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    config = common.base()
    config.stage = common.parse_arg(arg, stage=1).stage
    config.model = {
        "image_size": 64,
        "width": 96,
        "motion_slots": 8,
        "heads": 4,
        "channel_base": 1024,
        "channel_cap": 96,
        "backward_resolutions": (4, 8, 16),
        "dropout": 0.0,
        "align_corners": True,
        "flow_init_scale": 0.1,
        "mask_init_bias": 1.5,
    }
    config.data.update(
        real="data/puppets", cartoon="data/puppets", real_split="real_train", cartoon_split="cartoon_train"
    )
    config.weights.image_gradient = 1.0
    config.optimizer.update(beta1=0.9, decay="cosine", warmup_steps=100)
    config.optimizer.multipliers = {"motion_encoder": 5.0}
    if config.stage == 1:
        config.steps, config.batch_size = 12000, 8
        config.optimizer.learning_rate = 1e-3
    else:
        config.steps, config.batch_size = 2500, 4
        config.optimizer.learning_rate = 5e-4
        config.weights.analogy = 1.0
    config.log_every, config.pictures_every, config.checkpoint_every = 50, 250, 500
    return config
