"""Motion recovery: how much of the true change from the source picture the output shows.

A metric of this project, for data whose right answer is known (rendered puppets).
"""

import numpy as np

from toontalker_jax.evaluation.pictures import as_unit_range

THRESHOLD = 0.05  # in [0, 1]: a pixel counts if truth and source differ by more, on average over the channels


def motion_recovery(output: np.ndarray, truth: np.ndarray, source: np.ndarray) -> float:
    """1 - Σ|output - truth| / Σ|source - truth| over the moving pixels of all frames of one case.

    1 = the truth itself, 0 = as far from it as the source standing still, below 0 = further. A pixel of a frame moves
    if mean over channels |truth - source| > 0.05.

    Args:
      output, truth: [F, H, W, 3]. uint8, or float in [0, 1].
      source: [H, W, 3], likewise.

    Returns:
      The recovery, or NaN if no pixel moves: then it is not defined.

    Raises:
      ValueError: shapes that do not fit; floats outside [0, 1] or not finite.
    """
    if output.shape != truth.shape or truth.shape[1:] != source.shape or output.ndim != 4:
        raise ValueError(
            f"output {output.shape} and truth {truth.shape} must be [F, H, W, 3], source {source.shape} [H, W, 3]."
        )
    output, truth = as_unit_range("output", output), as_unit_range("truth", truth)
    source = as_unit_range("source", source)
    moves = np.abs(truth - source).mean(axis=-1) > THRESHOLD  # [F, H, W]
    if not moves.any():
        return float("nan")
    error = np.abs(output - truth)[moves].sum()
    return float(1 - error / np.abs(source - truth)[moves].sum())
