"""The flag by which scripts take a recipe, and --config.NAME=VALUE with it."""

from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "A recipe in configs/.", lock_config=True)
