"""Writes tests/golden/perceptual.npz: VGG19 features, pyramid, loss and gradient in torch, float64, random weights.

Needs torch (written with 2.13.0, CPU); the tests do not. Run from the root: python -m tests.golden.make_perceptual
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from tests.golden.perceptual_recipe import LAYERS, image, weights

TAPPED = (0, 5, 10, 19, 28)  # relu1_1, 2_1, 3_1, 4_1, 5_1


def features(state: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clamp(-1, 1) / 2 + 0.5
    mean, std = (
        torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    x, maps = (x - mean) / std, []
    for layer in LAYERS:
        if layer == "pool":
            if min(x.shape[2:]) < 2:
                break
            x = F.max_pool2d(x, 2)
            continue
        x = F.relu(F.conv2d(x, state[f"features.{layer[0]}.weight"], state[f"features.{layer[0]}.bias"], padding=1))
        if layer[0] in TAPPED:
            maps.append(x)
    return maps


def pyramid(x: torch.Tensor) -> list[torch.Tensor]:
    levels = [x]
    for scale in (0.5, 0.25, 0.125):
        sigma = (1 / scale - 1) / 2
        size = 2 * round(sigma * 4) + 1
        taps = torch.exp(-((torch.arange(size, dtype=x.dtype) - size // 2) ** 2) / (2 * sigma**2))
        kernel = torch.outer(taps, taps)
        kernel = (kernel / kernel.sum()).expand(3, 1, size, size)
        step = int(1 / scale)
        levels.append(F.conv2d(x, kernel, padding=size // 2, groups=3)[:, :, ::step, ::step])
    return levels


def main() -> None:
    state = {name: torch.from_numpy(value).double() for name, value in weights().items()}
    arrays = {}
    # 40 × 36: sides that no scale divides evenly all the way down
    odd = torch.from_numpy(image(40, 36, 1)).double().permute(0, 3, 1, 2)
    for i, tapped in enumerate(features(state, odd)):
        arrays[f"relu{i + 1}_1"] = tapped[:, ::32, ::4, ::4].permute(0, 2, 3, 1)
    for i, level in enumerate(pyramid(odd)):
        arrays[f"level_{i}"] = level[:, :, ::2, ::2].permute(0, 2, 3, 1)
    prediction = torch.from_numpy(image(64, 64, 2)).double().permute(0, 3, 1, 2).requires_grad_()
    target = torch.from_numpy(image(64, 64, 3)).double().permute(0, 3, 1, 2)
    terms = []
    for a, b in zip(pyramid(prediction), pyramid(target), strict=True):
        terms += [(m - n).abs().mean() for m, n in zip(features(state, a), features(state, b), strict=True)]
    loss = torch.stack(terms).sum()
    loss.backward()
    arrays |= {"loss": loss.detach(), "terms": torch.stack(terms).detach()}
    arrays |= {"gradient": prediction.grad[:, :, ::5, ::5].permute(0, 2, 3, 1), "gradient_norm": prediction.grad.norm()}
    arrays = {name: array.detach().numpy().astype(np.float32) for name, array in arrays.items()}
    np.savez(Path(__file__).parent / "perceptual.npz", **arrays)


if __name__ == "__main__":
    main()
