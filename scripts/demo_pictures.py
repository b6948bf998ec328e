"""What the demo shows: a video of a case, and a grid with a block of each type."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_pipelines import transforms, video_writer

FRAME_RATE = Fraction(25)
GRID_MOMENTS, GAP = 5, 8


def enlarge(picture: np.ndarray, zoom: int) -> np.ndarray:
    return transforms.resize(picture, picture.shape[0] * zoom, picture.shape[1] * zoom)


def block(source: np.ndarray, driving: np.ndarray, output: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Rows driver, result (the source at its left) and truth; columns are moments."""
    moments = np.linspace(0, len(driving) - 1, GRID_MOMENTS + 1, dtype=int)[1:]
    blank = np.full_like(source, 255)
    rows = ((blank, driving), (source, output), (blank, truth))
    return np.concatenate([np.concatenate([left, *frames[moments]], axis=1) for left, frames in rows])


def write_grid(path: Path, blocks: Sequence[np.ndarray]) -> None:
    """Four blocks, two by two, as a PNG file."""
    gap = np.full((blocks[0].shape[0], GAP, 3), 255, np.uint8)
    halves = [np.concatenate([left, gap, right], axis=1) for left, right in (blocks[:2], blocks[2:])]
    grid = np.concatenate([halves[0], np.full((GAP, *halves[0].shape[1:]), 255, np.uint8), halves[1]])
    path.write_bytes(transforms.encode_png(enlarge(grid, zoom=2)))


def write_video(path: Path, case: Mapping[str, np.ndarray], result: np.ndarray) -> None:
    """Frames of source | driver | result | truth."""
    with video_writer.open_writer(path, FRAME_RATE) as writer:
        for driving, frame, truth in zip(case["driving"], result, case["truth"], strict=True):
            writer.write(enlarge(np.concatenate([case["source"], driving, frame, truth], axis=1), zoom=4))
