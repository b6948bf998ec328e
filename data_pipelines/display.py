"""How a decoded frame is meant to be shown: square pixels, upright."""

from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type

from data_pipelines import colour, transforms

# The nearest to 1 in use is 16:15 (PAL). Below that it is what FFmpeg notes when it brings a crop to a rounded size.
_LEAST_STRETCH = Fraction(103, 100)
_MOST_STRETCH = 4  # What lies beyond is a fault of the file.


def pixel_ratio(stream: av.VideoStream) -> Fraction:
    """Width over height of the stream's pixels; 1 if it tells none, hardly another one or an absurd one."""
    told = stream.sample_aspect_ratio
    if not told or told < 0:
        return Fraction(1)
    told = Fraction(told)
    return told if _LEAST_STRETCH <= max(told, 1 / told) <= _MOST_STRETCH else Fraction(1)


def to_array(frame: av.VideoFrame, ratio: Fraction) -> np.ndarray:
    """uint8 [H, W, 3] RGB as it is shown, upright; pixels of that ratio become square by a change of the width."""
    image = colour.to_rgb(frame)
    image = transforms.resize(image, image.shape[0], max(1, round(image.shape[1] * ratio)))
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    return image if matrix is None else _upright(image, np.frombuffer(bytes(matrix), np.int32))


def _upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`image` turned by quarters and mirrored as the file's nine numbers say: x' = a x + c y, y' = b x + d y."""
    a, b, _, c, d = matrix[:5]
    if abs(int(b)) > abs(int(a)):  # the axes change places
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
