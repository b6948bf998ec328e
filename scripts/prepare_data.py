"""Prepares a data set for training.

    python scripts/prepare_data.py puppets --output data/puppets --image_size 64
    python scripts/prepare_data.py voxceleb --input VIDEOS --output data/voxceleb --workers 16
    python scripts/prepare_data.py cartoon --input CLIPS --output data/cartoon
    python scripts/prepare_data.py images --input PICTURES --output data/faces

`puppets` renders the embedded two-domain data set: the splits real_train, cartoon_train, real_test, cartoon_test.
The others read a folder in any layout that data_pipelines/preparation/layouts.py lists: `voxceleb` and `cartoon` videos
and folders of frames, `images` single pictures. An interrupted run of these goes on when it is started again. With
--shard=i/N a job does its part of the work; the same command without --shard then makes the data set of all parts.
"""

import math
import os

from absl import app, flags

from data_pipelines.builders import puppets
from data_pipelines.preparation.cut_options import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.plan import SHARD_BYTES, make_plan
from data_pipelines.preparation.prepare import prepare, target_folder
from scripts.endings import in_one_line
from scripts.option_flags import from_flags
from scripts.preparations import options
from scripts.preparations.report import print_plan, print_report

_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write to: new, empty, or that of the same command before.", required=True
)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Processes.")

_INPUT = flags.DEFINE_string("input", None, "Folder to read.")
_SPLIT_FILE = flags.DEFINE_string("split_file", None, "CSV: name (of a clip or identity), split; others are left out.")
_TEST_SHARE = flags.DEFINE_float("test_share", 0.1, "Share of identities in `test` where neither folders nor file say.")
_STRIPS = flags.DEFINE_enum("strips", "auto", ["auto", "yes", "no"], "Whether images hold frames side by side.")
_SHARD_MIB = flags.DEFINE_float("shard_mib", SHARD_BYTES / 2**20, "Size of a shard, roughly.", lower_bound=0)
_SHARD = flags.DEFINE_string("shard", None, "i/N: do only the i-th of N parts of the work, i from 0.")
_BEAM = flags.DEFINE_string("beam", None, "Flags for Apache Beam, as --beam='--runner=DirectRunner', which then works.")
flags.adopt_module_key_flags(options)  # for --help


def prepare_puppets(_: str) -> None:
    """Renders the puppets as the flags say."""
    if given := [flag.name for flag in (_INPUT, _SPLIT_FILE, _SHARD, _BEAM) if flag.present]:
        raise ValueError(f"--{given[0]} is nothing for puppets, which are rendered, whole: leave it out")
    config = from_flags(puppets.PuppetsConfig)
    written = puppets.prepare(os.path.expanduser(_OUTPUT.value), config, _WORKERS.value)
    print(f"{_OUTPUT.value}: " + ("written" if written else "already there, complete and the same"))


def prepare_clips(name: str) -> None:
    """Cuts, writes and merges the clips of a folder as the flags say."""
    if not _INPUT.value:
        raise ValueError(f"{name} needs --input=FOLDER, which holds the clips")
    if not 0 <= _SHARD_MIB.value < math.inf:
        raise ValueError(f"--shard_mib={_SHARD_MIB.value}: a shard needs a size")
    cut, source, output = from_flags(CutOptions), os.path.expanduser(_INPUT.value), os.path.expanduser(_OUTPUT.value)
    split_file = _SPLIT_FILE.value and os.path.expanduser(_SPLIT_FILE.value)
    items, left_out = find_items(source, single_images=name == "images", strips=_STRIPS.value)
    shard_bytes = max(1, round(_SHARD_MIB.value * 2**20))
    plan = make_plan(name, items, left_out, cut, split_file, _TEST_SHARE.value, shard_bytes)
    print_plan(plan, bool(split_file))
    beam_options = None if _BEAM.value is None else _BEAM.value.split()
    report = prepare(plan, source, output, _WORKERS.value, parse_job(_SHARD.value), beam_options)
    target = target_folder(output, plan)
    if report:
        print_report(report, target)
    else:
        print(f"shard {_SHARD.value} of the work is done; when all are, the same command without --shard ends it")


def parse_job(text: str | None) -> tuple[int, int]:
    """ "2/8" as numbers; without a text the whole work."""
    try:
        index, count = map(int, (text or "0/1").split("/"))
    except ValueError:
        raise ValueError(f"--shard={text}: write i/N, as 0/8") from None
    return index, count


_DATASETS = {
    "puppets": prepare_puppets,
    "voxceleb": prepare_clips,
    "cartoon": prepare_clips,
    "images": prepare_clips,
}


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in _DATASETS:
        raise app.UsageError(f"name one data set out of {', '.join(_DATASETS)}, got {' '.join(argv[1:]) or 'none'}")
    with in_one_line(ValueError, OSError, ctrl_c="the same command goes on."):
        _DATASETS[argv[1]](argv[1])


if __name__ == "__main__":
    app.run(main)
