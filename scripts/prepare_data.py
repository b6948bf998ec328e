"""Prepares a data set for training.

    python scripts/prepare_data.py puppets --output data/puppets --image_size 64
    python scripts/prepare_data.py voxceleb --input VIDEOS --output data/voxceleb --workers 16
    python scripts/prepare_data.py cartoon --input CLIPS --output data/cartoon
    python scripts/prepare_data.py images --input PICTURES --output data/faces

`puppets` renders the embedded two-domain data set: the splits real_train, cartoon_train, real_test, cartoon_test.
The others read a folder in any layout that data_pipelines/preparation/layouts.py lists: `voxceleb` and `cartoon` videos
and folders of frames, `images` single pictures. An interrupted run goes on when it is started again. With --shard=i/N a
job does its part of the work; the same command without --shard then makes the data set of all parts.
"""

import collections
import dataclasses
import os
from pathlib import Path
from typing import Any

from absl import app, flags

from data_pipelines.builders import puppets
from data_pipelines.preparation.cutting import CutOptions
from data_pipelines.preparation.layouts import find_items
from data_pipelines.preparation.merge import DROPPED, REPORT
from data_pipelines.preparation.plan import SHARD_BYTES, Plan, make_plan
from data_pipelines.preparation.prepare import prepare, target_folder

_PUPPETS, _CUT = puppets.PuppetsConfig(), CutOptions()
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to; must be absent or empty.", required=True)
# Those without a name are read by `from_flags`.
flags.DEFINE_integer(
    "image_size", None, f"Side of the frames in pixels; {_PUPPETS.image_size} for puppets, else {_CUT.image_size}."
)
flags.DEFINE_integer(
    "jpeg_quality", _CUT.jpeg_quality, f"1 to 100, 0 is PNG. Puppets up to {puppets.PNG_UP_TO} px are always PNG."
)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count(), "Processes.")

flags.DEFINE_integer("seed", _PUPPETS.seed, "Puppets: seed of identities and motions.")
flags.DEFINE_integer("real_clips", _PUPPETS.real_clips, "Puppets: real training clips, an identity each.")
flags.DEFINE_integer("cartoon_clips", _PUPPETS.cartoon_clips, "Puppets: cartoon training clips.")
flags.DEFINE_integer("test_clips", _PUPPETS.test_clips, "Puppets: test clips of each domain.")
flags.DEFINE_integer("frames", _PUPPETS.frames, "Puppets: frames of a clip.")

_INPUT = flags.DEFINE_string("input", None, "Folder to read.")
_SPLIT_FILE = flags.DEFINE_string("split_file", None, "CSV with the columns name (of a clip or identity) and split.")
_TEST_SHARE = flags.DEFINE_float("test_share", 0.1, "Share of identities in `test` where neither folders nor file say.")
_STRIPS = flags.DEFINE_enum("strips", "auto", ["auto", "yes", "no"], "Whether images hold frames side by side.")
flags.DEFINE_enum("crop", _CUT.crop, ["auto", "face", "none"], "auto: square frames as they are, others by the face.")
flags.DEFINE_string("detector", _CUT.detector, "Cascade .xml or YuNet .onnx; OpenCV's cascade without it.")
flags.DEFINE_float("crop_scale", _CUT.crop_scale, "Side of the crop over that of the face.")
flags.DEFINE_integer("min_side", _CUT.min_side, "Drop smaller crops (pixels); 0: half of --image_size.")
flags.DEFINE_integer("min_frames", _CUT.min_frames, "Drop shorter clips.")
flags.DEFINE_integer("max_frames", _CUT.max_frames, "Divide longer scenes.")
flags.DEFINE_float("min_face_share", _CUT.min_face_share, "Drop scenes with a face more seldom.")
_SHARD_MIB = flags.DEFINE_float("shard_mib", SHARD_BYTES / 2**20, "Size of a shard, roughly.", lower_bound=0)
_SHARD = flags.DEFINE_string("shard", None, "i/N: do only the i-th of N parts of the work, i from 0.")
_BEAM = flags.DEFINE_string("beam", None, "Flags for Apache Beam, as --beam='--runner=DirectRunner', which then works.")


def from_flags(options: type) -> Any:
    """A dataclass of the flags that are named as its fields; what has no value keeps its default."""
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(options)}
    return options(**{name: value for name, value in values.items() if value is not None})


def prepare_puppets(_: str) -> None:
    """Renders the puppets as the flags say."""
    config = from_flags(puppets.PuppetsConfig)
    written = puppets.prepare(_OUTPUT.value, config, _WORKERS.value)
    print(f"{_OUTPUT.value}: " + ("written" if written else "already there, complete and the same"))


def prepare_clips(name: str) -> None:
    """Cuts, writes and merges the clips of a folder as the flags say."""
    if not _INPUT.value:
        raise ValueError(f"{name} needs --input=FOLDER, which holds the clips")
    options = from_flags(CutOptions)
    items, left_out = find_items(_INPUT.value, single_images=name == "images", strips=_STRIPS.value)
    shard_bytes = max(1, round(_SHARD_MIB.value * 2**20))
    plan = make_plan(name, items, left_out, options, _SPLIT_FILE.value, _TEST_SHARE.value, shard_bytes)
    print_plan(plan)
    beam_options = None if _BEAM.value is None else _BEAM.value.split()
    report = prepare(plan, _INPUT.value, _OUTPUT.value, _WORKERS.value, parse_job(_SHARD.value), beam_options)
    target = target_folder(_OUTPUT.value, plan)
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


def print_plan(plan: Plan) -> None:
    """What was found, before the long work, so that a misread layout shows."""
    items = [item for shard in plan.shards for item in shard.items]
    kinds = collections.Counter(item.kind for item in items)
    people = sorted({item.identity for item in items})
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"found: {found}; {len(people)} identities, as {', '.join(people[:3])}; splits: {', '.join(plan.splits)}")


def print_report(report: dict[str, Any], target: Path) -> None:
    """Totals, and what deserves a look."""
    for split, counts in report["splits"].items():
        print(f"{split}: {counts['clips']} clips, {counts['frames']} frames, {counts['identities']} identities")
    print(f"dropped: {report['dropped']} ({target / DROPPED} says why)")
    if report["duplicates"]:
        first = " = ".join(report["duplicates"][0])
        print(f"warning: {len(report['duplicates'])} clips are there more than once, as {first} ({target / REPORT})")
    if several := report["identities_in_several_splits"]:
        print(f"warning: {len(several)} identities are in several splits, as {several[0]} ({target / REPORT})")
    print(f"{target}: complete")


_DATASETS = {
    "puppets": prepare_puppets,
    "voxceleb": prepare_clips,
    "cartoon": prepare_clips,
    "images": prepare_clips,
}


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in _DATASETS:
        raise app.UsageError(f"name one data set out of {', '.join(_DATASETS)}, got {' '.join(argv[1:]) or 'none'}")
    try:
        _DATASETS[argv[1]](argv[1])
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("interrupted: the same command goes on") from None


if __name__ == "__main__":
    app.run(main)
