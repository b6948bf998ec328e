"""Makes a TFDS data set of finished shards: their final names, the clip table, what was dropped, a report."""

import collections
import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipelines.preparation import shards
from data_pipelines.preparation.plan import Plan, Shard

VERSION = "1.0.0"
INFO, DROPPED, REPORT = "dataset_info.json", "dropped.csv", "report.json"


def merge(plan: Plan, work: Path, target: Path) -> dict[str, Any]:
    """Moves the shards in `work` to `target`, writes everything else there, deletes `work`; returns the report.

    It can be interrupted at any moment and called again. dataset_info.json comes last: where it is, all is.

    Raises:
      FileNotFoundError: shards are not there yet.
      ValueError: there is not one clip.
    """
    told = {shard.index: read_description(work, shard) for shard in plan.shards}
    if missing := [index for index, description in told.items() if description is None]:
        raise FileNotFoundError(
            f"{work}: {len(missing)} of {len(plan.shards)} shards are not written, as {missing[:8]}"
        )
    dropped = [{"source": name, "first": None, "last": None, "reason": reason} for name, reason in plan.left_out]
    dropped += [row for description in told.values() for row in description["dropped"]]
    filled = {split: [s for s in plan.shards if s.split == split and told[s.index]["clips"]] for split in plan.splits}
    filled = {split: own for split, own in filled.items() if own}
    target.mkdir(parents=True, exist_ok=True)
    _write_dropped(target / DROPPED, dropped)
    if not filled:
        shutil.rmtree(work)  # Other options may keep some.
        raise ValueError(f"all {len(dropped)} items were dropped: {target / DROPPED} says why")
    tables = {split: _table([told[shard.index] for shard in own]) for split, own in filled.items()}
    report = _report(tables, dropped)
    moves = [
        (shard, _file_template(plan, target, split).sharded_filepath(shard_index=number, num_shards=len(own)))
        for split, own in filled.items()
        for number, shard in enumerate(own)
    ]
    _check_whole(work, moves, told)
    for shard, final in moves:
        records, _ = shards.shard_files(work, shard)
        if records.exists():  # else moved before an interruption
            os.replace(records, final)
    _write_info(plan, target, tables, {s: [told[shard.index] for shard in own] for s, own in filled.items()}, report)
    shutil.rmtree(work)
    return report


def read_description(work: Path, shard: Shard) -> dict[str, Any] | None:
    """What a finished shard holds; None if it is not finished. Raises ValueError if that cannot be read."""
    _, description = shards.shard_files(work, shard)
    return read_json(description) if description.exists() else None


def read_json(path: Path) -> dict[str, Any]:
    """Raises ValueError with the path if it is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read ({error}): delete it, then start again") from None


def _check_whole(work: Path, moves: Sequence[tuple[Shard, os.PathLike]], told: dict[int, dict]) -> None:
    """Raises ValueError if a shard is missing or cut off; it counts as unwritten from then on."""
    lost = []
    for shard, final in moves:
        records, description = shards.shard_files(work, shard)
        file = records if records.exists() else Path(final)
        if not file.exists() or file.stat().st_size != told[shard.index]["bytes"]:
            lost.append(records.name)
            description.unlink()
    if lost:
        raise ValueError(f"{work}: {', '.join(lost[:8])} are missing or cut off: start again to write them anew")


def _file_template(plan: Plan, target: Path, split: str) -> tfds.core.ShardedFileTemplate:
    return tfds.core.ShardedFileTemplate(
        data_dir=target, dataset_name=plan.name, split=split, filetype_suffix="array_record"
    )


def _table(descriptions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clips of a split with their first record."""
    rows, start = [], 0
    for description in descriptions:
        for row in description["clips"]:
            rows.append({"name": row["name"], "identity": row["identity"], "start": start, **row})
            start += row["length"]
    return rows


def _report(tables: dict[str, list[dict]], dropped: list[dict]) -> dict[str, Any]:
    """What a person wants to know: totals, clips that are the same, identities that are in several splits."""
    same: dict[str, list[str]] = collections.defaultdict(list)
    seen: dict[str, list[str]] = collections.defaultdict(list)
    for split, rows in tables.items():
        for row in rows:
            same[row["sha256"]].append(f"{split}/{row['name']}")
        for identity in {row["identity"] for row in rows}:
            seen[identity].append(split)
    return {
        "splits": {
            split: {
                "clips": len(rows),
                "frames": sum(row["length"] for row in rows),
                "identities": len({row["identity"] for row in rows}),
            }
            for split, rows in tables.items()
        },
        "dropped": len(dropped),
        "duplicates": [names for names in same.values() if len(names) > 1],
        "identities_in_several_splits": sorted(name for name, splits in seen.items() if len(splits) > 1),
    }


def _write_dropped(path: Path, dropped: list[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["source", "first", "last", "reason"])
        writer.writeheader()
        writer.writerows(dropped)


def _write_info(plan: Plan, target: Path, tables: dict, descriptions: dict[str, list[dict]], report: dict) -> None:
    """The JSON files of TFDS, dataset_info.json last, each by a rename."""
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=plan.name, version=tfds.core.Version(VERSION), data_dir=os.fspath(target), module_name=__name__
    )
    metadata = tfds.core.MetadataDict(
        fingerprint=plan.fingerprint,
        options=plan.recorded_options,
        clips=tables,
        shard_bytes={split: [told["bytes"] for told in own] for split, own in descriptions.items()},
        # Shards that an earlier version wrote before it was interrupted have none.
        shard_sha256={split: [told.get("sha256") for told in own] for split, own in descriptions.items()},
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Clips of talking heads, one record a frame; written by scripts/prepare_data.py.",
        features=shards.features(plan.options),
        metadata=metadata,
        disable_shuffling=True,
    )
    info.set_file_format("array_record")
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[sum(row["length"] for row in told["clips"]) for told in own],
            num_bytes=sum(told["bytes"] for told in own),
            filename_template=_file_template(plan, target, split),
        )
        for split, own in descriptions.items()
    ]
    info.set_splits(tfds.core.splits.SplitDict(splits))
    folder = target / "unfinished"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    info.write_to_directory(folder)
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    for name in sorted(os.listdir(folder), key=lambda name: name == INFO):
        os.replace(folder / name, target / name)
    folder.rmdir()
