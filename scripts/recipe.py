"""The flag by which scripts take a recipe, and --config.NAME=VALUE with it."""

import json
from typing import Any

from absl import app
from ml_collections import ConfigDict, config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A recipe, configs/NAME.py[:KEY=VALUE,…]; --config.KEY=VALUE changes it.", lock_config=True
)


def as_json(config: ConfigDict) -> dict[str, Any]:
    """The recipe as it is stored: its tuples are lists there."""
    return json.loads(json.dumps(config.to_dict()))


def parse_flags(argv: list[str]) -> list[str]:
    """For `app.run`. What ml_collections says of a wrong recipe, or of a key that it lacks, becomes one line."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        key, _, hint = str(error).replace("\\n", "\n").partition("\n")  # repeatedly quoted
        key = key.replace("\\", "").strip("'\"")
        raise SystemExit(f"error: the recipe has no key {key!r}. {hint.strip() or 'See configs/common.py.'}") from None
    except (OSError, ImportError, OverflowError, TypeError, ValueError) as error:
        raise SystemExit(f"error: --config: {' '.join(str(error).split())}") from None
