"""Clips of a data set that scripts/prepare_data.py wrote."""

import array
import bisect
import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from data_pipelines import transforms
from data_pipelines.clip_source import BadRecord, ClipSource, check_index, frame_range
from data_pipelines.compact_strings import CompactStrings
from data_pipelines.open_files import allow_open_files

UNFINISHED = "unfinished"  # Folder in the output of a preparation that is at work or was interrupted.


class PreparedClips(ClipSource):
    """A split of a data set written by scripts/prepare_data.py: ArrayRecord, one record a frame.

    Args:
      path: the folder given to prepare_data as output, or the one inside it that holds dataset_info.json.
      split: a TFDS split of it, as "real_train".
      first, last: use the frames [first, last) of each clip; None is the clip's own start or end.

    Attributes:
      lengths, identities: of the clips, as in `ClipSource`.
      image_size: side of the frames in pixels.
      shard_files: the ArrayRecord files of the split.

    Raises:
      FileNotFoundError: no prepared data set at `path`, or a shard of it is missing.
      ValueError: it has no such split, no frames in that range, a shard is truncated, or there are more shards than
        files may be open.
    """

    def __init__(self, path: str | os.PathLike, split: str, first: int | None = None, last: int | None = None):
        builder = _open_builder(path)
        if split not in builder.info.splits:
            raise ValueError(f"{path} has no split {split!r}: choose one of {', '.join(sorted(builder.info.splits))}")
        self._read_table(builder.info.metadata["clips"][split], first, last)
        # TFDS would decode the pictures with a slower library, and takes five times as long to parse a record: what
        # it reads from serves as it is.
        self._records = builder.as_data_source(split).data_source
        info = builder.info.splits[split]
        self.shard_files = [Path(file) for file in info.filepaths]
        allow_open_files(len(self.shard_files), f"{path}, split {split}")
        self._shard_ends = list(itertools.accumulate(info.shard_lengths))
        _check_shards(self.shard_files, info.shard_lengths, builder.info.metadata.get("shard_bytes", {}).get(split))
        self.image_size = builder.info.features["image"].shape[0]
        self._has_motion = "motion" in builder.info.features
        builder.info.metadata.clear()  # A cache of TFDS keeps the builder, with the whole table: a kilobyte a clip.

    def _read_table(self, table: Sequence[Mapping[str, Any]], first: int | None, last: int | None) -> None:
        """Keeps what reading needs, in about a hundred bytes a clip."""
        self._names = CompactStrings(row["name"] for row in table)
        self.identities = CompactStrings(str(row["identity"]) for row in table)
        ranges = [frame_range(row["name"], row["length"], first, last) for row in table]
        self._starts = array.array("q", (row["start"] + own.start for row, own in zip(table, ranges, strict=True)))
        self.lengths = array.array("q", map(len, ranges))

    def __len__(self) -> int:
        return len(self.lengths)

    def name(self, clip: int) -> str:
        """The clip's name in the data set."""
        return self._names[clip]

    def frame(self, clip: int, index: int) -> np.ndarray:
        """Frame `index` of a clip, uint8 [H, W, 3] RGB."""
        return self.fetch(clip, index)()

    def fetch(self, clip: int, index: int) -> Callable[[], np.ndarray]:
        """See ClipSource."""
        return functools.partial(self._decoded, clip, index, self._features(clip, index)["image"].bytes_list.value[0])

    def _decoded(self, clip: int, index: int, image: bytes) -> np.ndarray:
        try:
            return transforms.decode(image)
        except ValueError as error:
            raise BadRecord(self._place(clip, index, error)) from None

    def motion(self, clip: int, index: int) -> np.ndarray:
        """The motion behind frame `index`, float32 [M] (puppets.MOTION_NAMES). Raises ValueError if not recorded."""
        if not self._has_motion:
            raise ValueError("this data set records no motion")
        return np.array(self.record(clip, index)["motion"], np.float32)

    def record(self, clip: int, index: int) -> dict[str, list[bytes | int | float]]:
        """What the data set holds for a frame, by name; its encoded picture is ["image"][0]."""
        features = self._features(clip, index).items()
        return {name: list(getattr(value, value.WhichOneof("kind")).value) for name, value in features}

    def _features(self, clip: int, index: int) -> Mapping[str, tf_feature_pb2.Feature]:
        check_index(self, clip, index)
        try:
            record = self._records[self._starts[clip] + index]
        except RuntimeError as error:  # ArrayRecord's word for every fault
            raise BadRecord(self._place(clip, index, error)) from None
        return tf_example_pb2.Example.FromString(record).features.feature

    def _place(self, clip: int, index: int, error: Exception) -> str:
        shard = self.shard_files[bisect.bisect_right(self._shard_ends, self._starts[clip] + index)]
        return f"frame {index} of clip {self.name(clip)} in {shard}: {' '.join(str(error).split())}"


def prepared_folders(path: Path) -> list[Path]:
    """The folders with a dataset_info.json: `path` itself, and those two levels below (name/version)."""
    return sorted(info.parent for pattern in ("", "*/*/") for info in path.glob(f"{pattern}dataset_info.json"))


def read_tables(path: str | os.PathLike) -> dict[str, list[dict[str, Any]]]:
    """The clip table of each split: name, identity, start (its first record), length … Raises as PreparedClips."""
    return dict(_open_builder(path).info.metadata["clips"])


def read_shard_hashes(path: str | os.PathLike) -> dict[str, list[str | None]]:
    """The SHA-256 of each split's shards, where they are recorded: puppets' are not. Raises as PreparedClips."""
    return dict(_open_builder(path).info.metadata.get("shard_sha256", {}))


def check_finished(path: Path) -> None:
    """Raises ValueError for the output of a preparation that is at work or was interrupted."""
    if (path / UNFINISHED).is_dir():
        raise ValueError(f"{path}: the preparation is not finished: start prepare_data.py again to go on")


def _open_builder(path: str | os.PathLike) -> tfds.core.DatasetBuilder:
    check_finished(Path(path))
    found = prepared_folders(Path(path))
    if len(found) != 1:
        what = f"{len(found)} data sets; name one of them" if found else "no prepared data set; see prepare_data.py"
        raise FileNotFoundError(f"{path} holds {what}")
    try:
        builder = tfds.builder_from_directory(found[0])
    except Exception as error:  # TFDS has many, down to those of JSON and protobuf.
        raise ValueError(f"{found[0]}: its JSON files cannot be read ({error}): prepare it anew") from None
    if "clips" not in (builder.info.metadata or {}):
        raise ValueError(f"{found[0]} has no table of clips: prepare it by scripts/prepare_data.py")
    return builder


def _check_shards(files: Sequence[Path], lengths: Sequence[int], sizes: Sequence[int] | None) -> None:
    """Raises FileNotFoundError or ValueError for a shard that is missing or cut off: by its size, where it is known."""
    for number, (file, length) in enumerate(zip(files, lengths, strict=True)):
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing: copy the shard again or prepare the data set anew")
        if sizes:
            has, wanted, unit = file.stat().st_size, sizes[number], "bytes"
        else:
            has, wanted, unit = _count_records(file), length, "readable records"
        if has != wanted:
            raise ValueError(f"{file} has {has} {unit} in place of {wanted}: copy the shard again or prepare it anew")


def _count_records(file: Path) -> int:
    try:
        reader = array_record_module.ArrayRecordReader(str(file))
        count = reader.num_records()
        reader.close()
        return count
    except RuntimeError:
        return 0
