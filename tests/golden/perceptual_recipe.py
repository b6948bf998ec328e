"""Random VGG19 weights and images by seed, for the golden numbers of `perceptual.npz` (numpy only)."""

import zlib

import numpy as np

# (index in torchvision's `features`, in, out); "pool" as there
LAYERS = [
    (0, 3, 64), (2, 64, 64), "pool", (5, 64, 128), (7, 128, 128), "pool",
    (10, 128, 256), (12, 256, 256), (14, 256, 256), (16, 256, 256), "pool",
    (19, 256, 512), (21, 512, 512), (23, 512, 512), (25, 512, 512), "pool", (28, 512, 512),
]  # fmt: skip


def weights() -> dict[str, np.ndarray]:
    """Random weights by torchvision's names: seeded by the name, He-normal, small biases. float32."""
    state = {}
    for index, channels_in, channels_out in (layer for layer in LAYERS if layer != "pool"):
        for kind, shape, scale in (
            ("weight", (channels_out, channels_in, 3, 3), (2 / (9 * channels_in)) ** 0.5),
            ("bias", (channels_out,), 0.1),
        ):
            name = f"features.{index}.{kind}"
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            state[name] = np.float32(scale) * rng.standard_normal(shape, dtype=np.float32)
    return state


def image(height: int, width: int, seed: int) -> np.ndarray:
    """[1, H, W, 3], beyond [-1, 1] in places, so that the clamp counts."""
    return np.random.default_rng(seed).uniform(-1.3, 1.3, (1, height, width, 3)).astype(np.float32)
