"""Compiles a recipe's training step for a TPU slice, with no TPU, and says what it needs of each chip.

    python scripts/compile_check.py --config=configs/stage1.py --topology=v5e:16x16 --batch_per_chip=8
    python scripts/compile_check.py --config=configs/stage2.py --topology=v6e:2x2 --config.model.remat=true

Any --config.key=value of training works. Needs the extra "tpu" (libtpu holds the compiler) and, at the paper's size,
10 GB of memory and tens of minutes; --effort=-1 is several times faster and its memory is that of a program that is
less optimized. JSON goes to the standard output, the same as a table to the standard error; the exit status is 1 if
the step does not fit. Results are kept in --cache. See docs/tpu.md.
"""

import json
import os
import shlex
import sys
from typing import Any

# Before the first import of JAX: it computes nothing here, and the compiler looks for no TPU.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")  # a single one has a program of its own (ops/bilinear.py)
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict

from scripts import compile_once
from scripts.compile_report import table
from scripts.recipe import CONFIG, parse_flags
from scripts.report_file import check_place
from toontalker_jax.training import ahead_of_time
from toontalker_jax.training.chips import read_topology

_BATCH = flags.DEFINE_integer("batch", 0, "Rows of a batch, on all chips; default: the recipe's batch_size.")
_BATCH_PER_CHIP = flags.DEFINE_integer("batch_per_chip", 0, "The same, for each chip.")
_SEARCH = flags.DEFINE_bool("search", True, "If it does not fit, look for the batch that does.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write the report there, as JSON.")
flags.adopt_module_key_flags(compile_once)  # for --help
flags.declare_key_flag("config")
flags.mark_flag_as_required("config")


def batch_size(config: ConfigDict, chips: int) -> int:
    """The batch that the flags ask for. Raises ValueError if it does not divide."""
    if _BATCH.value < 0 or _BATCH_PER_CHIP.value < 0 or (_BATCH.value and _BATCH_PER_CHIP.value):
        raise ValueError("give --batch or --batch_per_chip, one of them and at least 1.")
    batch = _BATCH_PER_CHIP.value * chips or _BATCH.value or config.batch_size
    if batch % (chips * config.accumulate):
        parts = f"{chips} chips × accumulate = {config.accumulate}"
        raise ValueError(f"a batch of {batch} does not divide among {parts}: pass --batch_per_chip=N.")
    return batch


def batch_that_fits(config: ConfigDict, report: dict[str, Any]) -> int | None:
    """Rows a chip, less than those of the report, which do not fit."""
    chips, rows = report["chips"], report["batch_per_chip"]

    def compile_for(rows: int) -> tuple[bool, int]:
        print(f"compiling for a batch of {rows} a chip …", file=sys.stderr)
        tried = compile_once.check(compile_once.changed(config, batch_size=rows * chips))
        return tried["fits"], tried["needed"]

    tries = ahead_of_time.batches_a_chip(config.accumulate, rows)
    too_much = rows, report["needed"]
    return ahead_of_time.largest_that_fits(compile_for, tries, too_much, report["argument_bytes"], report["available"])


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Optax tells of every constant schedule.
    jax.config.update("jax_exec_time_optimization_effort", compile_once.EFFORT.value)
    config = CONFIG.value
    try:
        output = check_place(_OUTPUT.value)
        _, chips = read_topology(compile_once.TOPOLOGY.value)
        config = compile_once.changed(config, batch_size=batch_size(config, chips))
        report = compile_once.check(config)
        if not report["fits"] and _SEARCH.value:
            report["batch_that_fits"] = batch_that_fits(config, report)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    report["command"] = shlex.join(["python", *sys.argv])
    text = json.dumps(report, indent=2)
    print(text, flush=True)
    if output:
        output.write_text(text + "\n")
    print(table(report), file=sys.stderr)
    sys.exit(not report["fits"])


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
