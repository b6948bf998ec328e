"""Deterministic weights for the official ToonTalker architecture, by parameter name (numpy only).

`weights(manifest, salt)` gives every parameter of a state dict the values that the golden outputs
were computed with: a standard-normal draw from a generator seeded with crc32(salt + name), scaled by
the name's rule below. `manifest` maps each name to its shape (manifest.json).
"""
import math
import zlib

import numpy as np


def values(name: str, shape: tuple[int, ...], salt: str) -> np.ndarray:
    """float32 array of `shape` for the parameter `name`; `salt` tells two networks apart ('gen', 'gen_real')."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}/{name}".encode())))
    draw = rng.standard_normal(shape, dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "in_proj_weight" or name.endswith(("out_proj.weight", "linear1.weight", "linear2.weight")):
        return draw / math.sqrt(shape[-1])                      # attention and feed-forward matrices
    if ".norm" in name:
        return 1 + 0.1 * draw if leaf == "weight" else 0.1 * draw   # LayerNorm
    if name.endswith(("scale2.weight", "shift2.weight", "latlayer1.weight")):
        return 0.5 * draw / math.sqrt(math.prod(shape[1:]))     # plain convolutions
    if ".to_flows." in name and name.endswith("conv.weight"):
        return 0.2 * draw                                        # keeps the flow smooth, as a trained one is
    if name.endswith("modulation.bias"):
        return 1 + 0.1 * draw
    if leaf == "bias" or leaf.endswith("_bias") or name.endswith("noise.weight"):
        return 0.1 * draw
    return draw                                                  # equalised-rate weights, embeddings, constant input


def weights(manifest: dict[str, list[int]], salt: str) -> dict[str, np.ndarray]:
    """The whole state dict, without the fixed blur kernels (names that end in '.kernel')."""
    return {n: values(n, tuple(s), salt) for n, s in manifest.items() if not n.endswith(".kernel")}


def image(size: int, seed: int) -> np.ndarray:
    """A smooth colour test image, float32 (3, size, size) in [-1, 1]: eight random plane waves per channel."""
    rng = np.random.Generator(np.random.PCG64(seed))
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float64) / size
    planes = []
    for _ in range(3):
        waves = []
        for _ in range(8):
            amplitude, fx, fy, phase = rng.uniform(0.3, 1.0), rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform()
            waves.append(amplitude * np.sin(2 * np.pi * (fx * xs + fy * ys + phase)))
        planes.append(np.clip(np.sum(waves, axis=0) / 2.5, -1, 1))
    return np.stack(planes).astype(np.float32)
