"""Stage 1 of the paper: reconstruction on real videos (section 3.4; VoxCeleb, 256×256).

    python scripts/train.py --config=configs/stage1.py --workdir=runs/stage1 \
        --config.data.real=DATA --config.vgg=vgg19-dcbb9e9d.pth

Losses and length are the paper's: L1 + 10 · perceptual + adversarial, 450 k iterations, batch 64, Adam 5e-4. The rest
(layers and scales of the perceptual loss, Adam's betas, both learning-rate ratios) is the published setting of LIA, on
which ToonTalker builds. Cost: not yet measured at this size.

`--config=configs/stage1.py:recipe=modern`: common.modern, and a network that starts by warping with small flows, in
the sampler's consistent corner convention. Large batches: --config.batch_size=1024, with fewer steps.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    recipe = common.recipe(arg)
    config = common.base()
    config.steps, config.batch_size = 450_000, 64
    config.weights.update(perceptual=10.0, adversarial=1.0)
    common.lia_adam(config, 5e-4)
    config.log_every, config.pictures_every, config.checkpoint_every = 100, 1000, 5000
    if recipe == "modern":
        common.modern(config)
        config.model.update(align_corners=True, flow_init_scale=0.1, mask_init_bias=1.5)
    return config
