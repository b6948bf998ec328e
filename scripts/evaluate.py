"""Measures a network. The report is JSON.

    python scripts/evaluate.py recovery --checkpoint DIR --output report.json --grid grid.png
    python scripts/evaluate.py parts --checkpoint DIR --output parts.json --grid parts.png
    python scripts/evaluate.py reconstruction --checkpoint DIR --driving_path VIDEO --first 500 --output report.json

`recovery`: motion recovery of relative transfer on held-out puppets, where the right answer is rendered.
`parts`: the same where the head, the mouth, the eyes … move alone, from neutral to a stated place.
`reconstruction`: L1 of the frames from `--first` on, all driven from the first of them with absolute motion, against
that frame standing still. Each row of the grid is source | driver | result | truth.
"""

import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from data_pipelines import puppets, transforms, video
from toontalker_jax.checkpoints import load_model, package_versions
from toontalker_jax.evaluation.protocols import self_reconstruction, transfer_recovery
from toontalker_jax.models.toontalker import ToonTalker
from toontalker_jax.reenactment.transfer import KINDS, Reenactor, check_kind

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Report to write, .json.", required=True)
_GRID = flags.DEFINE_string("grid", None, "Picture grid to write, .png.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Frames computed at once.", lower_bound=1)
_TYPES = flags.DEFINE_list("types", list(KINDS), "recovery, parts: the types to measure.")
_CASES = flags.DEFINE_integer("cases", 64, "recovery, parts: cases of each type.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 4, "recovery, parts: frames of each case.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "recovery, parts: seed of identities and motions.")
_DRIVING = flags.DEFINE_string("driving_path", None, "reconstruction: the video.")
_FIRST = flags.DEFINE_integer("first", 0, "reconstruction: number of the first frame used.", lower_bound=0)
_DOMAIN = flags.DEFINE_enum("domain", "real", ["real", "cartoon"], "reconstruction: the video's domain.")

GRID_CASES = 2  # recovery, parts: cases of each type shown
GRID_FRAMES = 8  # reconstruction: frames shown

Rows = list[list[np.ndarray]]


def shown(reenactor: Reenactor, cases: Iterator[dict[str, np.ndarray]]) -> Rows:
    """A row of the grid, source | driver | result | truth, for the last frame of each of the first cases."""
    rows = []
    for case in itertools.islice(cases, GRID_CASES):
        output = reenactor.transfer(case["source"], case["reference"], case["driving"])
        rows.append([case["source"], case["driving"][-1], output[-1], case["truth"][-1]])
    return rows


def recovery(model: ToonTalker) -> tuple[dict, Rows]:
    rows, results = [], {}
    for kind in _TYPES.value:
        reenactor = Reenactor(model, kind, "relative", _BATCH_SIZE.value)
        settings = (kind, "test", _SEED.value, _CASES.value, _FRAMES.value, model.config.image_size)
        results[kind] = transfer_recovery(reenactor.transfer, puppets.transfer_cases(*settings))
        print(f"{kind}: recovery {results[kind]['mean']:.4f} over {results[kind]['count']} cases")
        rows += shown(reenactor, puppets.transfer_cases(*settings))
    report = {
        "recovery": {kind: result["mean"] for kind, result in results.items()},
        "cases": _CASES.value,
        "frames": _FRAMES.value,
        "seed": _SEED.value,
        "split": "test",
        "results": results,
    }
    return report, rows


def parts(model: ToonTalker) -> tuple[dict, Rows]:
    rows, means = [], {}
    for kind in _TYPES.value:
        reenactor, means[kind] = Reenactor(model, kind, "relative", _BATCH_SIZE.value), {}
        for part in puppets.PARTS:
            settings = (kind, part, "test", _SEED.value, _CASES.value, _FRAMES.value, model.config.image_size)
            means[kind][part] = transfer_recovery(reenactor.transfer, puppets.part_cases(*settings))["mean"]
            rows.append(sum(shown(reenactor, puppets.part_cases(*settings)), []))
        print(f"{kind}: {', '.join(f'{part} {mean:.3f}' for part, mean in means[kind].items())}")
    return {"recovery": means, "cases": _CASES.value, "frames": _FRAMES.value, "seed": _SEED.value}, rows


def reconstruction(model: ToonTalker) -> tuple[dict, Rows]:
    size = model.config.image_size

    def frames() -> Iterator[np.ndarray]:
        every = itertools.islice(video.read_frames(_DRIVING.value), _FIRST.value, None)
        return (transforms.to_square(frame, size) for frame in every)

    reenactor = Reenactor(model, _DOMAIN.value[0] + "2" + _DOMAIN.value[0], "absolute", _BATCH_SIZE.value)
    report = self_reconstruction(reenactor, [frames()])
    print(
        f"L1 {report['l1']['over_frames']:.4f}, source standing still {report['copy_source_l1']['over_frames']:.4f},"
        f" over {report['frames']} frames"
    )
    chosen = set(np.linspace(0, report["frames"] - 1, GRID_FRAMES, dtype=int).tolist())
    truths = [frame for number, frame in enumerate(frames()) if number in chosen]
    outputs = reenactor.frames(truths)
    rows = [[truths[0], truth, output, truth] for truth, output in zip(truths, outputs, strict=True)]
    return {**report, "driving_path": _DRIVING.value, "first": _FIRST.value, "domain": _DOMAIN.value}, rows


PROTOCOLS = {"recovery": recovery, "parts": parts, "reconstruction": reconstruction}


def check_inputs(protocol: str) -> None:
    """Raises ValueError for what would fail only after minutes."""
    if protocol == "reconstruction":
        if _DRIVING.value is None:
            raise ValueError("reconstruction needs --driving_path")
        length = video.probe(_DRIVING.value).num_frames
        if length is not None and _FIRST.value >= length:
            raise ValueError(f"{_DRIVING.value} has {length} frames: --first {_FIRST.value} leaves none")
    for path, suffix in ((_OUTPUT.value, ".json"), (_GRID.value, ".png")):
        if path and Path(path).suffix != suffix:
            raise ValueError(f"{path}: must end in {suffix}")
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    if len(argv) != 2 or argv[1] not in PROTOCOLS:
        raise app.UsageError(f"name one protocol out of {', '.join(PROTOCOLS)}, got {' '.join(argv[1:]) or 'none'}")
    try:
        check_inputs(argv[1])
        model = load_model(_CHECKPOINT.value)
        for kind in _TYPES.value if argv[1] != "reconstruction" else ():
            check_kind(kind, model.domains)
        report, rows = PROTOCOLS[argv[1]](model)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    report = {
        "protocol": argv[1],
        "command": shlex.join(["python", *sys.argv]),
        "checkpoint": _CHECKPOINT.value,
        "image_size": model.config.image_size,
        "versions": package_versions(),
        **report,
    }
    Path(_OUTPUT.value).write_text(json.dumps(report, indent=2) + "\n")
    if _GRID.value:
        grid = np.concatenate([np.concatenate(row, axis=1) for row in rows])
        Path(_GRID.value).write_bytes(transforms.encode_png(grid))


if __name__ == "__main__":
    app.run(main)
