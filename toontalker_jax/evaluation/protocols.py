"""What is run on which cases, and how the results are averaged. Cases and frames come as arguments."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from toontalker_jax.evaluation.motion_recovery import motion_recovery
from toontalker_jax.evaluation.reconstruction import average_l1, frame_l1
from toontalker_jax.reenactment.transfer import Reenactor

Reenact = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def transfer_recovery(reenact: Reenact, cases: Iterable[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Motion recovery of each case, and its mean over the cases.

    Args:
      reenact: (source [S, S, 3], reference [S, S, 3], driving [F, S, S, 3]) → output [F, S, S, 3], uint8 all; for
        example `Reenactor.transfer`.
      cases: mappings with "source", "reference", "driving" and the right answer "truth" [F, S, S, 3].

    Returns:
      "mean", "per_case" (None where nothing moves: such a case is left out of the mean), "count" of cases in the mean.

    Raises:
      ValueError: no case, or none in which anything moves.
    """
    recoveries = []
    for case in cases:
        output = reenact(case["source"], case["reference"], case["driving"])
        recoveries.append(motion_recovery(output, case["truth"], case["source"]))
    defined = [recovery for recovery in recoveries if not np.isnan(recovery)]
    if not defined:
        raise ValueError(f"{len(recoveries)} cases, and in none of them does anything move: there is no mean.")
    return {
        "mean": float(np.mean(defined)),
        "per_case": [None if np.isnan(recovery) else recovery for recovery in recoveries],
        "count": len(defined),
    }


def self_reconstruction(reenactor: Reenactor, videos: Iterable[Iterable[np.ndarray]]) -> dict[str, Any]:
    """L1 when the first frame of a video is driven by every frame of it, the first included, with absolute motion.

    Args:
      reenactor: with motion "absolute" and the same domain twice.
      videos: frames uint8 [S, S, 3] each; read once, never all in memory.

    Returns:
      "l1" and "copy_source_l1" (the first frame standing still), each with both averages of `average_l1`; "frames" and
      "videos", how many there were.

    Raises:
      ValueError: relative motion, or a video without frames.
    """
    if reenactor.motion != "absolute":
        raise ValueError(f"this protocol needs absolute motion, the reenactor has {reenactor.motion!r}.")
    outputs, copies = [], []
    for video in videos:
        # `driving` runs ahead of `truth` by the batch under way, no more.
        driving, truth = itertools.tee(video)
        source = next(iter(driving), None)
        if source is None:
            raise ValueError(f"video {len(outputs) + 1} has no frames.")
        reenactor.prepare(source)
        pairs = zip(reenactor.frames(itertools.chain([source], driving)), truth, strict=True)
        errors = np.array([(frame_l1(output, true), frame_l1(source, true)) for output, true in pairs])
        outputs.append(errors[:, 0])
        copies.append(errors[:, 1])
    return {
        "l1": average_l1(outputs),
        "copy_source_l1": average_l1(copies),
        "frames": sum(map(len, outputs)),
        "videos": len(outputs),
    }
