"""Random changes of pictures, numpy in and numpy out: the frames of one clip in a row are changed alike.

What differs between two frames of a clip is its motion, so a change that told them apart would be learnt as motion.
"""

import dataclasses

import cv2
import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])  # how bright red, green and blue are (Rec. 601)


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of pictures, the same whenever it is called: uint8 [H, W, 3] RGB in and out.

    Attributes:
      mirrored: left and right change places.
      colours: an affine map of RGB in 0 … 255, [3, 4], as of `colour_map`; the result is rounded and clipped.
    """

    mirrored: bool = False
    colours: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self.mirrored:
            image = cv2.flip(image, 1)
        return image if self.colours is None else cv2.transform(image, self.colours)


def draw_change(rng: np.random.Generator | None, flip: bool = False, colour_jitter: float = 0.0) -> Change:
    """Draws the change of a clip's frames.

    Args:
      rng: decides alone; not read, and may be None, if nothing is asked for.
      flip: mirror them left to right, with probability 1/2.
      colour_jitter: j in [0, 1): brightness, contrast and saturation are scaled by factors from [1 - j, 1 + j].
    """
    mirrored = flip and rng.random() < 0.5
    colours = colour_map(*rng.uniform(1 - colour_jitter, 1 + colour_jitter, 3)) if colour_jitter else None
    return Change(mirrored, colours)


def colour_map(brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """The affine map of RGB in 0 … 255, float64 [3, 4], that scales these three; factors of 1 change nothing.

    Saturation scales the distance from grey of the same luma, brightness the distance from black, contrast that from
    127.5: a fixed grey, since a picture's own mean would change two frames of a clip differently.
    """
    mixing = saturation * np.eye(3) + (1 - saturation) * _LUMA
    return np.hstack([contrast * brightness * mixing, np.full((3, 1), 127.5 * (1 - contrast))])
