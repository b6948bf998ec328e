"""Stage 2 of the paper: both domains under the analogy constraint (section 3.4; VoxCeleb and cartoon clips, 256×256).

    python scripts/train.py --config=configs/stage2.py --workdir=runs/stage2 --config.init=runs/stage1 \
        --config.data.real=DATA --config.data.cartoon=DATA --config.vgg=vgg19-dcbb9e9d.pth

Reconstruction in both domains as in stage 1, 20 · analogy motion loss both ways, adversarial loss on the cross-domain
outputs; 10 k iterations, batch 8, Adam 1e-4. Table 5 of the paper: --config.weights.analogy=0. Table 6: 0, 20, 40, 100.
Table 7, in both stages: --config.model.query=mlp, --config.model.backward_resolutions="()", --config.model.sft_from=0.
More than 8 devices need a larger --config.batch_size. Cost: not yet measured at this size. `:recipe=modern`:
common.modern.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    recipe = common.recipe(arg)
    config = common.base()
    config.stage = 2
    config.steps, config.batch_size = 10_000, 8
    config.weights.update(perceptual=10.0, adversarial=1.0, analogy=20.0)
    common.lia_adam(config, 1e-4)
    config.log_every, config.pictures_every, config.checkpoint_every = 50, 500, 1000
    if recipe == "modern":
        common.modern(config)
        config.model.align_corners = True  # as in stage 1
    return config
