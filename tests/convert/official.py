"""What the official-format fixtures hold: 64 px networks of a few channels, by the recipe of `golden/`. numpy only."""

import json
from pathlib import Path

import numpy as np

from tests.golden import recipe

_MANIFEST = Path(__file__).parents[1] / "golden" / "manifest.json"
# Every size of the reference network at 64 px that depends on its widths, and what it is here: channels at 64 px,
# the width and the channels of the other maps, packed [q; k; v], motion slots, K·d and n·d.
_SIZES = {256: 4, 512: 8, 3 * 512: 3 * 8, 20: 2, 20 * 512: 2 * 8, 10 * 512: 10 * 8}


def shapes() -> dict[str, tuple[int, ...]]:
    """The official names at 64 px, in the official order."""
    manifest = json.loads(_MANIFEST.read_text())["64"]
    return {name: tuple(_SIZES.get(size, size) for size in shape) for name, shape in manifest.items()}


def state(salt: str) -> dict[str, np.ndarray]:
    """One network's state dict, float32; "gen" and "gen_real" differ."""
    blur = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(".kernel"):
            return 4 * blur if ".upsample." in name or ".blur." in name else blur
        return recipe.values(name, shape, salt).astype(np.float32)

    return {name: values(name, shape) for name, shape in shapes().items()}
