"""The puppets as a TFDS data set: ArrayRecord files, one record a frame, no TensorFlow.

Splits: real_train, cartoon_train, real_test, cartoon_test. A record holds `image` (PNG or JPEG), `motion` float32 [M]
(puppets.MOTION_NAMES), and the numbers `identity`, `clip`, `frame`. Records lie in the order of their generation: clip
by clip, frame by frame. The metadata holds the configuration and the table of the clips of each split.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_pipelines import puppets, transforms

PNG_UP_TO = 128  # Small pictures are made of edges, which JPEG blurs; a PNG of 64 px takes about 8 KB.


@dataclasses.dataclass(frozen=True)
class PuppetsConfig:
    """What is rendered. One clip an identity; `frames` a clip; PNG up to 128 px, JPEG of `jpeg_quality` above."""

    image_size: int = 64
    seed: int = 0
    real_clips: int = 460
    cartoon_clips: int = 120
    test_clips: int = 40
    frames: int = 32
    jpeg_quality: int = 95

    def __post_init__(self):
        for name, low, high in (
            ("image_size", puppets.MIN_SIZE, puppets.MAX_SIZE),
            ("seed", 0, 2**31 - 1),
            ("real_clips", 1, 10**6),
            ("cartoon_clips", 1, 10**6),
            ("test_clips", 1, 10**6),
            ("frames", 2, 10**5),
            ("jpeg_quality", 1, 100),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}: use a whole number from {low} to {high}")

    @property
    def encoding(self) -> str:
        """The format of the pictures: "png" or "jpeg"."""
        return "png" if self.image_size <= PNG_UP_TO else "jpeg"

    def clips(self, domain: str, split: str) -> int:
        """The number of clips of a domain ("real", "cartoon") in a split ("train", "test")."""
        if split == "test":
            return self.test_clips
        return self.real_clips if domain == "real" else self.cartoon_clips


def split_name(domain: str, split: str) -> str:
    """The TFDS split of a domain and a split: "real_train" …"""
    return f"{domain}_{split}"


def render_clip(config: PuppetsConfig, domain: str, split: str, clip: int) -> tuple[list[bytes], np.ndarray]:
    """Renders one clip: its encoded frames and their motion, float32 [frames, M]."""
    identity = puppets.sample_identity(domain, split, config.seed, clip)
    motion = puppets.sample_motion(domain, split, config.seed, clip, config.frames)
    images = (puppets.render(identity, frame_motion, config.image_size) for frame_motion in motion)
    if config.encoding == "png":
        return [transforms.encode_png(image) for image in images], motion
    return [transforms.encode_jpeg(image, config.jpeg_quality) for image in images], motion


def _render_task(task: tuple[PuppetsConfig, str, str, int]) -> tuple[list[bytes], np.ndarray]:
    return render_clip(*task)


class Puppets(tfds.core.GeneratorBasedBuilder):
    """Procedural talking heads in two domains; see data_pipelines/puppets.py."""

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded. Said here because TFDS 4.9.10 would look for checksums with a package it does not install.
    url_infos = {}

    def __init__(self, *, puppets_config: PuppetsConfig, render_map: Callable = map, **kwargs):
        """`render_map` maps in order, as `map` or a pool's `imap`; `kwargs` as for any TFDS builder (data_dir …)."""
        self._puppets_config = puppets_config
        self._render_map = render_map
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self._puppets_config
        shape = (config.image_size, config.image_size, 3)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape, encoding_format=config.encoding),
                    "motion": tfds.features.Tensor(shape=(len(puppets.MOTION_NAMES),), dtype=np.float32),
                    "identity": np.int64,
                    "clip": np.int64,
                    "frame": np.int64,
                }
            ),
            metadata=tfds.core.MetadataDict(
                config=dataclasses.asdict(config),
                motion_names=list(puppets.MOTION_NAMES),
                clips={
                    split_name(domain, split): _clip_table(config, domain, split) for domain, split in _domain_splits()
                },
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # Nothing is downloaded.
        return {split_name(domain, split): self._generate_examples(domain, split) for domain, split in _domain_splits()}

    def _generate_examples(self, domain: str, split: str) -> Iterator[tuple[int, dict]]:
        config = self._puppets_config
        tasks = [(config, domain, split, clip) for clip in range(config.clips(domain, split))]
        clips = tqdm(self._render_map(_render_task, tasks), split_name(domain, split), len(tasks), unit="clip")
        for clip, (images, motion) in enumerate(clips):
            for frame, image in enumerate(images):
                yield (
                    clip * config.frames + frame,
                    {
                        "image": io.BytesIO(image),
                        "motion": motion[frame],
                        "identity": clip,
                        "clip": clip,
                        "frame": frame,
                    },
                )


def _domain_splits() -> list[tuple[str, str]]:
    return [(domain, split) for split in puppets.SPLITS for domain in puppets.DOMAINS]


def _clip_table(config: PuppetsConfig, domain: str, split: str) -> list[dict]:
    """One row a clip: its name, identity, first record and number of records."""
    return [
        {
            "name": f"{domain}_{split}_{clip:05d}",
            "identity": clip,
            "start": clip * config.frames,
            "length": config.frames,
        }
        for clip in range(config.clips(domain, split))
    ]


def prepare(output: str | os.PathLike, config: PuppetsConfig, workers: int = 1) -> bool:
    """Writes the data set under `output`, rendered by `workers` processes; returns False if it is already there.

    Raises:
      FileExistsError: `output` holds anything but the same data set, complete.
    """
    output = Path(output)
    if workers < 1:
        raise ValueError(f"workers is {workers}: use at least 1")
    if _is_complete(output, config):
        return False
    tfds.disable_progress_bar()  # It counts records without a total; `_generate_examples` shows the clips.
    with _ordered_map(workers) as render_map, tempfile.TemporaryDirectory() as no_downloads:
        builder = Puppets(puppets_config=config, render_map=render_map, data_dir=output, file_format="array_record")
        builder.download_and_prepare(download_dir=no_downloads)
    return True


@contextlib.contextmanager
def _ordered_map(workers: int) -> Iterator[Callable]:
    """`map`, or the same by several processes."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the caller may hold threads (jax, TFDS), and a forked copy of a held lock never opens.
    with multiprocessing.get_context("spawn").Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield pool.imap


def _is_complete(output: Path, config: PuppetsConfig) -> bool:
    """Whether `output` holds this data set. Raises FileExistsError if it holds something else."""
    there = Puppets(puppets_config=config, data_dir=output, file_format="array_record")
    # TFDS writes into a temporary folder and renames it last, so a data set that is there is complete.
    if (Path(there.data_path) / "dataset_info.json").exists():
        has, wanted = there.info.metadata["config"], dataclasses.asdict(config)
        changed = [
            f"{name} {has.get(name)} (asked: {wanted[name]})" for name in wanted if has.get(name) != wanted[name]
        ]
        if not changed:
            return True
        raise FileExistsError(f"{output} holds puppets with {', '.join(changed)}: choose another output or delete it")
    # An interrupted run leaves empty folders behind; a killed one also its unfinished files.
    if output.is_file() or any(not path.is_dir() for path in output.rglob("*")):
        raise FileExistsError(
            f"{output} is in use by other files or an unfinished run: choose another output or delete it"
        )
    return False
