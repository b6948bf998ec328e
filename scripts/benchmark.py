"""Measures speed on this machine and prints JSON.

    python scripts/benchmark.py reenact --image_size 256 --type r2c --batch_size 1
    python scripts/benchmark.py train --config=configs/puppets.py:stage=1 --steps=10
    python scripts/benchmark.py layers --resolution=64
    python scripts/benchmark.py processes --config=configs/puppets.py:stage=1
    python scripts/benchmark.py data --data data/voxceleb

What each measures is written in scripts/benchmarks/; run nothing beside it.
"""

import json
import os
import shlex
import sys

import jax
from absl import app, flags, logging

from scripts.benchmarks import data, layers, processes, reenact, train
from scripts.recipe import parse_flags
from scripts.report_file import check_place
from toontalker_jax.checkpoints import package_versions
from toontalker_jax.cpu import settle_for_cpu

_OUTPUT = flags.DEFINE_string("output", None, "Also write the report there.")
flags.declare_key_flag("config")
for _module in (data, layers, processes, reenact, train):
    flags.adopt_module_key_flags(_module)  # for --help

BENCHMARKS = {
    "reenact": reenact.measure,
    "train": train.measure,
    "layers": layers.measure,
    "processes": processes.measure,
    "data": data.measure,
}


def main(argv: list[str]) -> None:
    settle_for_cpu(training="train" in argv)
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    if len(argv) != 2 or argv[1] not in BENCHMARKS:
        raise app.UsageError(f"name one benchmark out of {', '.join(BENCHMARKS)}, got {' '.join(argv[1:]) or 'none'}")
    try:
        output = check_place(_OUTPUT.value)
        measured = BENCHMARKS[argv[1]]()
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    if jax.process_index():
        return
    device = jax.local_devices()[0]
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "device": f"{device.device_kind} ({device.platform}), {os.cpu_count()} CPU cores",
        "versions": package_versions(),
        **measured,
    }
    text = json.dumps(report, indent=2, default=float) + "\n"
    print(text, end="")
    if output:
        output.write_text(text)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
