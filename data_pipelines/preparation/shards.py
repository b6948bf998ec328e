"""Writes one shard: an ArrayRecord file of TFDS examples, one a frame, and beside it what it holds as JSON.

A record has `image` (JPEG or PNG), `clip` (the name in the clip table) and `frame` (its number in the clip). The JSON
file comes last and by a rename: a shard that has one is whole.
"""

import contextlib
import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_pipelines import video
from data_pipelines.preparation import cutting
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import Item, measure
from data_pipelines.preparation.plan import Shard


def features(options: CutOptions) -> tfds.features.FeaturesDict:
    """What a record holds, for TFDS."""
    side = options.image_size
    encoding = "jpeg" if options.jpeg_quality else "png"
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format=encoding),
            "clip": tfds.features.Text(),
            "frame": np.int64,
        }
    )


def shard_files(folder: Path, shard: Shard) -> tuple[Path, Path]:
    """Where a shard's records and its JSON stand until they are merged."""
    stem = folder / f"shard-{shard.index:05d}"
    return stem.with_suffix(".array_record"), stem.with_suffix(".json")


def write_shard(shard: Shard, options: CutOptions, source: Path, folder: Path) -> None:
    """Cuts the shard's items and writes their frames. Same input, same bytes.

    Args:
      shard: the part of the work to do.
      options: how to cut and to encode.
      source: the input folder.
      folder: where the two files go.

    Raises:
      OSError: it cannot be written, as on a full disk; no part of the shard is left.
      ValueError: an item is gone, or not what it was when the work was planned.
    """
    records, description = shard_files(folder, shard)
    # A name of its own: what an orphan of a killed run, or another machine, still writes disturbs nobody.
    unfinished = records.with_suffix(f".{uuid.uuid4().hex}.partial")
    told: dict[str, Any] = {"clips": [], "dropped": []}
    try:
        with _record_writer(unfinished) as write:
            for item in shard.items:
                path = source / item.name
                source_hash = functools.cache(functools.partial(_file_hash, path))  # A long video gives many clips.
                for result in _cut(item, path, options):
                    if isinstance(result, cutting.Dropped):
                        told["dropped"].append({"source": item.name, **result._asdict()})
                    else:
                        told["clips"].append(_clip_row(item, result, source_hash()))
                        write(result.frames, told["clips"][-1]["name"], options)
        told |= {"bytes": unfinished.stat().st_size, "sha256": _file_hash(unfinished)}
        os.replace(unfinished, records)
        unfinished.write_text(json.dumps(told))
        os.replace(unfinished, description)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _cut(item: Item, path: Path, options: CutOptions) -> Iterator[cutting.CutClip | cutting.Dropped]:
    """What becomes of an item, provided that it is still what it was when the work was planned."""
    _check_unchanged(item, path)
    try:
        yield from cutting.cut(path, item.kind, options)
    except (ValueError, OSError):
        raise
    except Exception as error:  # as of a decoder with a fault: without the name nobody could find the file
        raise ValueError(f"{path}: cannot be cut ({error!r}): remove it from the input and report this") from error
    _check_unchanged(item, path)


def _check_unchanged(item: Item, path: Path) -> None:
    """A drive that is gone is no reason to drop its clips. Raises ValueError."""
    try:
        size = measure(path, item.kind)
    except OSError as error:
        raise ValueError(f"{path}: gone since the work began ({error}): start again when it is back") from None
    if size != item.size:
        raise ValueError(f"{path}: has changed since the work began: start again, with another output")


@contextlib.contextmanager
def _record_writer(path: Path) -> Iterator[Callable[[list[bytes], str, CutOptions], None]]:
    """`write(frames, clip name, options)`. Raises OSError if the disk is full."""
    try:
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    except RuntimeError as error:  # ArrayRecord knows RuntimeError only.
        raise _not_written(path, error) from None

    def write(frames: list[bytes], clip: str, options: CutOptions) -> None:
        serializer = tfds.core.ExampleSerializer(features(options).get_serialized_info())
        for number, image in enumerate(frames):
            example = serializer.get_tf_example({"image": image, "clip": clip, "frame": number})
            try:
                writer.write(example.SerializeToString(deterministic=True))
            except RuntimeError as error:
                raise _not_written(path, error) from None

    try:
        yield write
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        raise
    try:
        writer.close()
    except RuntimeError as error:
        raise _not_written(path, error) from None


def _not_written(path: Path, error: Exception) -> OSError:
    return OSError(f"{path.parent}: cannot be written ({error}): free space there, then start again to go on")


def _clip_row(item: Item, clip: cutting.CutClip, source_hash: str) -> dict[str, Any]:
    """The clip's row in the table, but for its start."""
    return {
        "name": item.name if clip.box is None else f"{item.name}@{clip.first}",
        "identity": item.identity,
        "length": len(clip.frames),
        "source": item.name,
        "first": clip.first,
        "box": clip.box and list(clip.box),
        "source_sha256": source_hash,
        "sha256": joined_hash(clip.frames),
    }


def joined_hash(parts: Iterable[bytes]) -> str:
    """SHA-256 over all parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    """SHA-256 of a file, or of the images of a folder one after the other, in their order."""
    if path.is_dir():
        return joined_hash(file.read_bytes() for file in video.frame_files(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
