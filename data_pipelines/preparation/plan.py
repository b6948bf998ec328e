"""What a preparation will do: which item goes to which split and into which shard. A function of the input alone.

A shard is the unit of work: one process writes it, an interrupted run goes on with the next one, and any number of
processes or machines make the same ones.
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import Item

SHARD_BYTES = 256 * 2**20  # Of pictures, roughly: small enough to repeat after an interruption.
_VIDEO_FACTOR = 16  # A video grows about so much when its frames become pictures.


@dataclasses.dataclass(frozen=True)
class Shard:
    """The items of one split that one file will hold; `index` counts the shards of all splits."""

    index: int
    split: str
    items: tuple[Item, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that decides what is written.

    Attributes:
      name: of the data set.
      options: how items become clips.
      shards: the work, in the order of splits and names.
      left_out: (name, reason) of files that are not used at all.
    """

    name: str
    options: CutOptions
    shards: tuple[Shard, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def splits(self) -> list[str]:
        """The splits, in the order of their shards."""
        return list(dict.fromkeys(shard.split for shard in self.shards))

    @functools.cached_property
    def recorded_options(self) -> dict[str, Any]:
        """The options as the data set records them: of a detector's file what it holds, since it may lie elsewhere."""
        options = dataclasses.asdict(self.options)
        if self.options.detector:
            file = Path(self.options.detector).expanduser()
            options["detector"] = f"SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
        return options

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all of this."""
        told = dataclasses.asdict(self) | {"options": self.recorded_options}
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def make_plan(
    name: str,
    items: Sequence[Item],
    left_out: Sequence[tuple[str, str]],
    options: CutOptions,
    split_file: str | os.PathLike | None = None,
    test_share: float = 0.1,
    shard_bytes: int = SHARD_BYTES,
) -> Plan:
    """Distributes the items.

    The split of an item is, whichever there is first: what `split_file` says; the folder it lies in; "test" for a share
    of the identities that a hash of their names chooses, so that no identity is in both.

    Args:
      name: of the data set, a word.
      items, left_out: as `layouts.find_items` gives them.
      options: how items become clips.
      split_file: CSV with the columns name and split; a name is that of an item (its path below the input) or of an
        identity, and what it does not name is left out.
      test_share: share of identities, 0 to 1.
      shard_bytes: size of a shard, roughly.

    Raises:
      ValueError: a share out of range, a split file that cannot be read or names nothing of these.
    """
    if not 0 <= test_share <= 1:
        raise ValueError(f"test_share is {test_share}: use 0 to 1")
    left_out = list(left_out)
    if split_file:
        table = _read_splits(Path(split_file), items)
        splits = [table.get(item.name) or table.get(item.identity) for item in items]
        left_out += [
            (item.name, f"not in {Path(split_file).name}")
            for item, split in zip(items, splits, strict=True)
            if split is None
        ]
    else:
        splits = [item.split or _hashed_split(item.identity, test_share) for item in items]
    shards: list[Shard] = []
    for split in sorted(set(filter(None, splits))):
        own = [item for item, its in zip(items, splits, strict=True) if its == split]
        shards += [Shard(len(shards) + n, split, group) for n, group in enumerate(_groups(own, shard_bytes))]
    return Plan(name, options, tuple(shards), tuple(sorted(left_out)))


def _hashed_split(identity: str, test_share: float) -> str:
    number = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8]) / 2**64
    return "test" if number < test_share else "train"


def _read_splits(path: Path, items: Sequence[Item]) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: the split file cannot be read ({error})") from None
    if not rows or not {"name", "split"} <= rows[0].keys():
        raise ValueError(f"{path}: a split file is a CSV with the columns name and split, and rows")
    pairs = {(row["name"] or "", row["split"] or "") for row in rows}
    if wrong := sorted({split for _, split in pairs if not split.isidentifier() or split == "all"}):
        raise ValueError(f"{path}: {wrong[0]!r} is no name of a split: use train, test or another word but all")
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = sorted(name for name, split in pairs if table[name] != split)
        raise ValueError(f"{path}: {twice[0]!r} stands in two splits: keep one of its rows")
    known = {name for item in items for name in (item.name, item.identity)}
    if unknown := sorted(table.keys() - known):
        raise ValueError(
            f"{path}: {len(unknown)} names are in no clip's path or identity, {unknown[0]!r} the first: write paths "
            f"below the input folder, as {items[0].name!r}, or identities, as {items[0].identity!r}"
        )
    return table


def _groups(items: Sequence[Item], shard_bytes: int) -> Iterator[tuple[Item, ...]]:
    """Consecutive items of about that many bytes together, when they will be pictures."""
    sizes = (item.size * (_VIDEO_FACTOR if item.kind == "video" else 1) for item in items)
    ends = itertools.accumulate(sizes)
    for _, group in itertools.groupby(zip(items, ends, strict=True), key=lambda pair: pair[1] // shard_bytes):
        yield tuple(item for item, _ in group)
