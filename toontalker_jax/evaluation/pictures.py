"""The range in which metrics compare pictures."""

import numpy as np


def as_unit_range(name: str, pictures: np.ndarray) -> np.ndarray:
    """uint8 in 0…255 or float in [0, 1] → float64 in [0, 1]. `name` is for the error.

    Raises:
      ValueError: floats outside [0, 1] or not finite ([-1, 1] pictures, most likely).
    """
    if pictures.dtype == np.uint8:
        return pictures / 255
    if not (pictures.min() >= 0 and pictures.max() <= 1):  # also catches NaN
        raise ValueError(
            f"{name} ranges from {pictures.min()} to {pictures.max()}: give uint8 pictures, or floats in [0, 1]."
        )
    return pictures.astype(np.float64)
