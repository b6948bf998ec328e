"""Stage 1 on the first 500 frames of one real video, 64×64, on two CPU cores: the small network on real footage.

    python scripts/train.py --config=configs/video.py --workdir=runs/video --config.data.real=VIDEO
    python scripts/evaluate.py reconstruction --checkpoint=runs/video --driving_path=VIDEO --first=500 \
        --output=runs/video.json --grid=runs/video.png

`config.data.real` is a video file or a folder of frames; `config.data.last` says how many of its frames are trained on.
"""

import ml_collections

from configs import common


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    common.parse_arg(arg)
    config = common.base()
    common.small_network(config)
    config.data.last = 500
    config.steps, config.batch_size = 1000, 8
    config.log_every, config.pictures_every, config.checkpoint_every = 50, 250, 500
    return config
