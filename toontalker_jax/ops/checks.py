"""The axis glossary, and the one check that public doors use.

N  batch                      H, W  image height and width       C  channels
S  image size (H = W = S)     K     motion slots                 d  model width
n  style vectors              T     tokens of a feature map (H·W)
"""

from collections.abc import Sequence

import jax


def check_shape(name: str, array: jax.Array, expected: Sequence[int | None]) -> None:
    """Raise ValueError unless `array.shape` equals `expected`; None stands for any size.

    Works while tracing, costs nothing at run time.
    """
    shape = tuple(array.shape)
    if len(shape) != len(expected) or any(e is not None and s != e for s, e in zip(shape, expected, strict=True)):
        wanted = ", ".join("any" if e is None else str(e) for e in expected)
        raise ValueError(f"{name} has shape {shape}, expected ({wanted}). Images are [N, S, S, 3], channels last.")
