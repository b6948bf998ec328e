"""The batches that training takes: keys, shapes, ranges. This is the contract between data and training.

Images are uint8 NHWC, RGB: a quarter of the bytes of float32 on the way to the device. There the training step makes
them float32 in [-1, 1]: x / 127.5 - 1 of the 8-bit value x.
"""

from typing import TypedDict

import numpy as np


class PairBatch(TypedDict):
    """Two distinct frames of one clip a row, uint8 [B, H, W, 3] each. For the in-domain reconstruction."""

    source: np.ndarray
    driving: np.ndarray


class AnalogyBatch(TypedDict):
    """Two distinct frames of a driver clip and one frame of the other domain a row, uint8 [B, H, W, 3] each."""

    reference: np.ndarray
    driving: np.ndarray
    source: np.ndarray


class Stage2Batch(TypedDict):
    """Both directions of stage 2: `r2c` has real drivers and cartoon sources, `c2r` the reverse."""

    r2c: AnalogyBatch
    c2r: AnalogyBatch
