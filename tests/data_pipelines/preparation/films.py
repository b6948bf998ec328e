"""Films of red squares on grey walls, which stand for faces, and what finds them; for the tests of cutting."""

import dataclasses

import cv2
import numpy as np

from data_pipelines import detectors
from data_pipelines.faces import Box
from data_pipelines.preparation import cutting
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.cutting import CutClip
from tests.data_pipelines.video_files import write

SMALL = CutOptions(image_size=32, jpeg_quality=0)


def red_squares(image):
    red = (image[..., 0] > 180) & (image[..., 1] < 90) & (image[..., 2] < 90)
    found = cv2.connectedComponentsWithStats(red.astype(np.uint8))[2][1:, :4].tolist()
    return sorted((Box(*box) for box in found if box[2] > 4), key=lambda box: -box.width * box.height)


def see_red(monkeypatch):
    """Puts a detector of red in the place of those of faces; the list that it returns grows with each look."""
    looks = []
    monkeypatch.setattr(detectors, "open_detector", lambda path="": lambda image: looks.append(1) or red_squares(image))
    return looks


def shot(x=None, y=30, side=30, wall=60, height=96, width=160, red=220):
    """A wall, brighter to the right, and a face on it unless x is None. A darker red is that of a face turned away."""
    image = np.repeat(np.full((height, width), wall, np.uint8)[..., None], 3, axis=2)
    image += (np.arange(width) // 4).astype(np.uint8)[:, None]
    if x is not None:
        image[max(0, y) : y + side, max(0, x) : max(0, x + side)] = red, 20, 20
    return image


AWAY = shot(60, red=170)


def textured(count, height, width):
    return list(np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


def cut(path, kind="frames", options=SMALL, **changes):
    return list(cutting.cut(path, kind, dataclasses.replace(options, **changes)))


def cut_frames(tmp_path, frames, **changes):
    return cut(write(tmp_path / "frames", frames), **changes)


def ranges(parts):
    """(first, last, box or reason) of each part."""
    return [
        (part.first, part.first + len(part.frames) - 1, part.box) if isinstance(part, CutClip) else tuple(part)
        for part in parts
    ]


class Film:
    """Frames that are made when they are read, and how often that was begun."""

    def __init__(self, length, last=None):
        self.length, self.last, self.readings = length, last or length, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.readings += 1
        length = self.length if self.readings < 3 else self.last
        return (shot(60, wall=60 + 60 * (n // 50 % 2)) for n in range(length))
