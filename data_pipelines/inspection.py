"""What a prepared data set holds, to look at and to verify."""

import collections
import concurrent.futures
import hashlib
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import transforms
from data_pipelines.clip_source import BadRecord
from data_pipelines.prepared_clips import PreparedClips, read_tables


def summarize(path: str | os.PathLike) -> dict[str, Any]:
    """Counts of each split: clips, frames, identities, lengths, bytes, shards, and the side of the frames in pixels.

    Raises:
      FileNotFoundError, ValueError: as `PreparedClips`.
    """
    return {split: _summarize_split(PreparedClips(path, split)) for split in read_tables(path)}


def _summarize_split(clips: PreparedClips) -> dict[str, Any]:
    lengths = sorted(clips.lengths)
    counts = collections.Counter(clips.identities)
    return {
        "clips": len(clips),
        "frames": sum(lengths),
        "identities": len(counts),
        "clips_per_identity_max": max(counts.values()),
        "frames_per_clip": {
            "min": lengths[0],
            "median": statistics.median(lengths),
            "max": lengths[-1],
        },
        "image_size": clips.image_size,
        "shards": len(clips.shard_files),
        "mebibytes": round(sum(file.stat().st_size for file in clips.shard_files) / 2**20, 1),
    }


def contact_sheet(clips: PreparedClips, rows: int = 8, columns: int = 8, side: int = 96) -> np.ndarray:
    """Pictures of a split, uint8 [rows * side, columns * side, 3]: a clip a row, evenly spaced over clips and time.

    A frame that cannot be read is red. There are no more rows than clips.
    """
    chosen = np.linspace(0, len(clips) - 1, min(rows, len(clips))).round().astype(int)
    sheet = []
    for clip in chosen:
        times = np.linspace(0, clips.lengths[clip] - 1, columns).round().astype(int)
        sheet.append(np.concatenate([_thumbnail(clips, clip, time, side) for time in times], axis=1))
    return np.concatenate(sheet)


def _thumbnail(clips: PreparedClips, clip: int, frame: int, side: int) -> np.ndarray:
    try:
        return transforms.to_square(clips.frame(clip, frame), side)
    except BadRecord:
        return np.full((side, side, 3), (255, 0, 0), np.uint8)


def check(clips: PreparedClips, table: Sequence[dict[str, Any]], workers: int = 1) -> Iterator[tuple[int, list[str]]]:
    """Reads a whole split, whose rows of the clip table are `table`; yields each clip's number and faults, in order.

    A fault is a record that cannot be read or decoded, one that is another's, a frame of another size, or a
    clip whose pictures have not the SHA-256 of the table (puppets have none there).
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from enumerate(pool.map(lambda clip: _check_clip(clips, clip, table[clip]), range(len(clips))))


def check_shards(clips: PreparedClips, hashes: Sequence[str | None], workers: int = 1) -> Iterator[list[str]]:
    """Reads whole shard files, also between the records, which `check` reads; yields the faults of each.

    A fault is a file that has not its SHA-256, which is None if none was recorded.
    """
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_check_shard, clips.shard_files, hashes)


def _check_shard(file: Path, recorded: str | None) -> list[str]:
    with file.open("rb") as shard:
        if recorded is None or hashlib.file_digest(shard, "sha256").hexdigest() == recorded:
            return []
    return [f"{file}: its bytes are not those that were written (SHA-256 differs): copy it again"]


def _check_clip(clips: PreparedClips, clip: int, row: dict) -> list[str]:
    faults, digest = [], hashlib.sha256()
    for index in range(clips.lengths[clip]):
        where = f"frame {index} of clip {clips.name(clip)}"
        try:
            record = clips.record(clip, index)
            digest.update(record["image"][0])
            image = transforms.decode(record["image"][0])
        except BadRecord as error:
            faults.append(str(error))
            continue
        except ValueError as error:
            faults.append(f"{where}: {error}")
            continue
        if image.shape != (clips.image_size, clips.image_size, 3):
            faults.append(f"{where} has the shape {image.shape}, not the side {clips.image_size}")
        if record["frame"] != [index] or ("sha256" in row and record["clip"] != [row["name"].encode()]):
            faults.append(f"{where}: the record is frame {record['frame']} of clip {record['clip']}")
    if not faults and row.get("sha256", digest.hexdigest()) != digest.hexdigest():
        faults.append(f"clip {clips.name(clip)}: its pictures are not those that were written (SHA-256 differs)")
    return faults
