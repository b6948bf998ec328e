"""Measures a network. The report is JSON.

    python scripts/evaluate.py recovery --checkpoint DIR --output report.json --grid grid.png
    python scripts/evaluate.py parts --checkpoint DIR --output parts.json --grid parts.png
    python scripts/evaluate.py reconstruction --checkpoint DIR --driving_path VIDEO --first 500 --output report.json

`recovery`: motion recovery of relative transfer on held-out puppets, where the right answer is rendered.
`parts`: the same where the head, the mouth, the eyes … move alone, from neutral to a stated place.
`reconstruction`: L1 of the frames from `--first` on, all driven from the first of them with absolute motion, against
that frame standing still, of a video, a folder of videos or a prepared data set (`--split`); averaged over all frames
and over the videos' means. Each row of the grid is source | driver | result | truth.
"""

import json
import shlex
import sys

import numpy as np
from absl import app, flags, logging

from data_pipelines import transforms
from scripts.evaluations import puppet_transfer, reconstruction
from scripts.report_file import check_place
from toontalker_jax.checkpoints import load_model, package_versions
from toontalker_jax.cpu import settle_for_cpu

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Report to write, .json.", required=True)
_GRID = flags.DEFINE_string("grid", None, "Picture grid to write, .png.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Frames computed at once.", lower_bound=1)
flags.adopt_module_key_flags(puppet_transfer)  # for --help
flags.adopt_module_key_flags(reconstruction)

PROTOCOLS = {
    "recovery": puppet_transfer.recovery,
    "parts": puppet_transfer.parts,
    "reconstruction": reconstruction.reconstruction,
}


def main(argv: list[str]) -> None:
    settle_for_cpu()
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    if len(argv) != 2 or argv[1] not in PROTOCOLS:
        raise app.UsageError(f"name one protocol out of {', '.join(PROTOCOLS)}, got {' '.join(argv[1:]) or 'none'}")
    try:
        if argv[1] == "reconstruction":
            reconstruction.check_videos()
        output, grid = check_place(_OUTPUT.value), check_place(_GRID.value, ".png")
        model = load_model(_CHECKPOINT.value)
        report, rows = PROTOCOLS[argv[1]](model, _BATCH_SIZE.value)
        report = {
            "protocol": argv[1],
            "command": shlex.join(["python", *sys.argv]),
            "checkpoint": _CHECKPOINT.value,
            "image_size": model.config.image_size,
            "versions": package_versions(),
            **report,
        }
        output.write_text(json.dumps(report, indent=2) + "\n")
        if grid:
            grid.write_bytes(transforms.encode_png(np.concatenate([np.concatenate(row, axis=1) for row in rows])))
    except (ValueError, OSError, ImportError) as error:  # the last of a bucket without the extra gcs
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    app.run(main)
