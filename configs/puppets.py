"""The embedded puppets at 64×64: both stages on two CPU cores.

    python scripts/prepare_data.py puppets --output data/puppets --real_clips 1000 --cartoon_clips 250
    python scripts/train.py --config=configs/puppets.py:stage=1 --workdir=runs/puppets1
    python scripts/train.py --config=configs/puppets.py:stage=2 --workdir=runs/puppets2 --config.init=runs/puppets1

About one hour and two, on two CPU cores. Not run from end to end as it stands: stage 2 made the last piece of the
shipped network, from the mean of two before (pretrained/puppets/README.md); what else was tried, from scratch too:
docs/puppets.md. `--config.weights.analogy=0` is the ablation without the analogy loss,
`--config.weights.adversarial=0 --config.r1.gamma=0` that without the adversarial one.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    config = common.base()
    config.stage = common.parse_arg(arg, stage=1).stage
    common.small_network(config)
    config.data.update(
        real="data/puppets", cartoon="data/puppets", real_split="real_train", cartoon_split="cartoon_train"
    )
    if config.stage == 1:
        config.steps, config.batch_size = 6000, 8
    else:
        config.steps, config.batch_size = 9000, 4
        config.weights.change, config.weights.analogy = 4.0, 10.0
        # More than this and the transfers take on the motions of their own domain's clips, not the driver's.
        config.weights.adversarial, config.r1.gamma = 0.05, 1.0
    config.log_every, config.pictures_every, config.checkpoint_every = 50, 250, 500
    return config
