"""L1 of a reconstructed video, in the two averages that the literature uses."""

from collections.abc import Sequence

import numpy as np

from toontalker_jax.evaluation.pictures import as_unit_range


def frame_l1(output: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame, in [0, 1]: [..., H, W, 3] → float64 [...].

    `output` may be one picture against many true frames: the source itself is the baseline that a network has to beat.
    Pictures are uint8, or float in [0, 1].
    """
    return np.abs(as_unit_range("output", output) - as_unit_range("truth", truth)).mean(axis=(-3, -2, -1))


def average_l1(videos: Sequence[np.ndarray]) -> dict[str, float]:
    """Both averages of the frames' L1, one array [F] a video (lengths may differ).

    Returns:
      "over_frames": the mean of all frames (as FOMM); "over_videos": the mean of the videos' means (as LIA).

    Raises:
      ValueError: no video, or a video without frames.
    """
    if not videos or any(len(video) == 0 for video in videos):
        raise ValueError(f"{len(videos)} videos of {[len(video) for video in videos]} frames: at least one of each.")
    return {
        "over_frames": float(np.concatenate(videos).mean()),
        "over_videos": float(np.mean([np.mean(video) for video in videos])),
    }
