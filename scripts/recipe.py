"""The flag by which scripts take a recipe, and --config.NAME=VALUE with it."""

import json
from typing import Any

from ml_collections import ConfigDict, config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A recipe, configs/NAME.py[:KEY=VALUE,…]; --config.KEY=VALUE changes it.", lock_config=True
)


def as_json(config: ConfigDict) -> dict[str, Any]:
    """The recipe as it is stored: its tuples are lists there."""
    return json.loads(json.dumps(config.to_dict()))
