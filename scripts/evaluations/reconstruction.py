"""L1 of videos' frames, all driven from the first of each with absolute motion, against that frame standing still."""

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import transforms, video
from data_pipelines.clips import clip_paths
from data_pipelines.prepared_clips import PreparedClips, prepared_folders
from toontalker_jax.evaluation.protocols import self_reconstruction
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import Reenactor

_DRIVING = flags.DEFINE_string(
    "driving_path", None, "reconstruction: a video or folder of frames, a folder of these, or a prepared data set."
)
_SPLIT = flags.DEFINE_string("split", "test", "reconstruction: the split of a prepared data set.")
_FIRST = flags.DEFINE_integer("first", 0, "reconstruction: number of the first frame used of each.", lower_bound=0)
_DOMAIN = flags.DEFINE_enum("domain", "real", ["real", "cartoon"], "reconstruction: the videos' domain.")

GRID_FRAMES = 8  # frames shown, of the first video

Frames = Callable[[], Iterator[np.ndarray]]


def check_videos() -> None:
    """Raises ValueError or OSError if there is no video, or no frame of one from --first on."""
    if _DRIVING.value is None:
        raise ValueError("reconstruction needs --driving_path")
    open_videos()


@functools.cache  # each video is read through once to count its frames
def open_videos() -> list[Frames]:
    """The frames of each video from --first on, in a function that reads them anew. Raises as `check_videos`."""
    path = Path(_DRIVING.value).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if prepared_folders(path):
        clips = PreparedClips(path, _SPLIT.value, _FIRST.value)
        return [functools.partial(_clip, clips, number) for number in range(len(clips))]
    paths = clip_paths(path)
    for one in paths:
        length = video.probe(one).num_frames
        if length is not None and _FIRST.value >= length - 1:
            left = max(length - _FIRST.value, 0)
            raise ValueError(f"{one} has {length} frames: --first {_FIRST.value} leaves {left}, at least 2 are needed")
    return [functools.partial(_frames, one) for one in paths]


def _clip(clips: PreparedClips, number: int) -> Iterator[np.ndarray]:
    return (clips.frame(number, frame) for frame in range(clips.lengths[number]))


def _frames(path: Path) -> Iterator[np.ndarray]:
    return itertools.islice(video.read_frames(path), _FIRST.value, None)


def reconstruction(model: ToonTalker, batch_size: int) -> tuple[dict, list[list[np.ndarray]]]:
    """The report and the grid."""
    size, videos = model.config.image_size, open_videos()

    def squares(frames: Frames) -> Iterator[np.ndarray]:
        return (transforms.to_square(frame, size) for frame in frames())

    reenactor = Reenactor(model, _DOMAIN.value[0] + "2" + _DOMAIN.value[0], "absolute", batch_size)
    report = self_reconstruction(reenactor, map(squares, videos))
    print(
        f"L1 {report['l1']['over_frames']:.4f}, source standing still {report['copy_source_l1']['over_frames']:.4f},"
        f" over {report['frames']} frames of {report['videos']} video(s)"
    )
    length = sum(1 for _ in videos[0]())
    chosen = set(np.linspace(0, length - 1, GRID_FRAMES, dtype=int).tolist())
    truths = [frame for number, frame in enumerate(squares(videos[0])) if number in chosen]
    reenactor.prepare(truths[0])
    outputs = reenactor.frames(truths)
    rows = [[truths[0], truth, output, truth] for truth, output in zip(truths, outputs, strict=True)]
    return {**report, "driving_path": _DRIVING.value, "first": _FIRST.value, "domain": _DOMAIN.value}, rows
