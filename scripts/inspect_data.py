"""Says what a prepared data set holds, and draws a contact sheet of it.

    python scripts/inspect_data.py data/voxceleb                # counts as JSON, contact sheets
    python scripts/inspect_data.py data/voxceleb --check        # also reads everything and verifies the hashes

A row of a contact sheet is a clip, its columns lie evenly in time. Exit status 1 if --check finds a fault.
"""

import json
import os
from pathlib import Path

from absl import app, flags, logging
from tqdm import tqdm

from data_pipelines import inspection, transforms
from data_pipelines.prepared_clips import PreparedClips, read_shard_hashes, read_tables

_CHECK = flags.DEFINE_bool("check", False, "Read and decode every record, and compare hashes.")
_SHEETS = flags.DEFINE_string("sheets", ".", "Folder for contact_sheet_SPLIT.png; empty: draw none.")
_ROWS = flags.DEFINE_integer("rows", 8, "Clips on a sheet.", lower_bound=1)
_COLUMNS = flags.DEFINE_integer("columns", 8, "Frames of a clip on a sheet.", lower_bound=1)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Threads of --check.", lower_bound=1)


def draw(path: str) -> None:
    """A contact sheet of each split."""
    for split in read_tables(path):
        file = Path(_SHEETS.value).expanduser() / f"contact_sheet_{split}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet = inspection.contact_sheet(PreparedClips(path, split), _ROWS.value, _COLUMNS.value)
        file.write_bytes(transforms.encode_png(sheet))
        print(file)


def count_faults(path: str) -> int:
    """Checks every split and prints each fault."""
    count, recorded = 0, read_shard_hashes(path)
    for split, table in read_tables(path).items():
        clips = PreparedClips(path, split)
        hashes = recorded.get(split, [None] * len(clips.shard_files))
        if unknown := hashes.count(None):
            print(f"{split}: {unknown} shards have no recorded SHA-256; their records are checked alone")
        of_clips = (faults for _, faults in inspection.check(clips, table, _WORKERS.value))
        of_shards = inspection.check_shards(clips, hashes, _WORKERS.value)
        for checked, total, unit in ((of_clips, len(table), "clip"), (of_shards, len(hashes), "shard")):
            for faults in tqdm(checked, split, total, unit=unit):
                for fault in faults:
                    tqdm.write(f"fault: {fault}")
                count += len(faults)
    return count


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # TFDS tells of every file it reads.
    if len(argv) != 2:
        raise app.UsageError(f"name one data set, got {' '.join(argv[1:]) or 'none'}")
    path = os.path.expanduser(argv[1])
    try:
        print(json.dumps(inspection.summarize(path), indent=2))
        if _SHEETS.value:
            draw(path)
        faults = count_faults(path) if _CHECK.value else 0
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    if _CHECK.value:
        print(f"{faults} faults" if faults else "every record is whole")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    app.run(main)
