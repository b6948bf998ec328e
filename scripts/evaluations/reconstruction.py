"""L1 of a video's frames, all driven from the first of them with absolute motion, against that frame standing still."""

import itertools
from collections.abc import Iterator

import numpy as np
from absl import flags

from data_pipelines import transforms, video
from toontalker_jax.evaluation.protocols import self_reconstruction
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import Reenactor

_DRIVING = flags.DEFINE_string("driving_path", None, "reconstruction: the video.")
_FIRST = flags.DEFINE_integer("first", 0, "reconstruction: number of the first frame used.", lower_bound=0)
_DOMAIN = flags.DEFINE_enum("domain", "real", ["real", "cartoon"], "reconstruction: the video's domain.")

GRID_FRAMES = 8  # frames shown


def check_video() -> None:
    """Raises ValueError or OSError if there is no video, or no frame of it from --first on."""
    if _DRIVING.value is None:
        raise ValueError("reconstruction needs --driving_path")
    length = video.probe(_DRIVING.value).num_frames
    if length is not None and _FIRST.value >= length:
        raise ValueError(f"{_DRIVING.value} has {length} frames: --first {_FIRST.value} leaves none")


def reconstruction(model: ToonTalker, batch_size: int) -> tuple[dict, list[list[np.ndarray]]]:
    """The report and the grid."""
    size = model.config.image_size

    def frames() -> Iterator[np.ndarray]:
        every = itertools.islice(video.read_frames(_DRIVING.value), _FIRST.value, None)
        return (transforms.to_square(frame, size) for frame in every)

    reenactor = Reenactor(model, _DOMAIN.value[0] + "2" + _DOMAIN.value[0], "absolute", batch_size)
    report = self_reconstruction(reenactor, [frames()])
    print(
        f"L1 {report['l1']['over_frames']:.4f}, source standing still {report['copy_source_l1']['over_frames']:.4f},"
        f" over {report['frames']} frames"
    )
    chosen = set(np.linspace(0, report["frames"] - 1, GRID_FRAMES, dtype=int).tolist())
    truths = [frame for number, frame in enumerate(frames()) if number in chosen]
    outputs = reenactor.frames(truths)
    rows = [[truths[0], truth, output, truth] for truth, output in zip(truths, outputs, strict=True)]
    return {**report, "driving_path": _DRIVING.value, "first": _FIRST.value, "domain": _DOMAIN.value}, rows
