"""Is anything lost when training is killed? Trains once in peace, then again with SIGKILLs, and compares bit for bit.

    python scripts/torture_resume.py --workdir=/tmp/torture --kills=20 --output=report.json

Half of the kills come while a checkpoint is being written, the others at any moment from the start of Python on. The
network is tiny, with every kind of state: average, discriminator, lazy penalty, dropout. Arguments after `--` go to
train.py, as `--config.seed=1`. Exit status 1 if the final states or metrics.jsonl differ, or if there was no time for
all kills.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from scripts.report_file import check_place
from scripts.torture_kills import LONGEST_S, final_state, finish, kill_once, render_frames

_WORKDIR = flags.DEFINE_string("workdir", None, "A new folder for everything.", required=True)
_KILLS = flags.DEFINE_integer("kills", 20, "How often the second training is killed.", lower_bound=0)
_STEPS = flags.DEFINE_integer("steps", 60, "Of each training.", lower_bound=2)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments of the kills.")
_OUTPUT = flags.DEFINE_string("output", None, "A JSON file for the report.")


def compare(peace: Path, torture: Path) -> dict[str, Any]:
    """What differs between the two trainings, to the last bit."""
    ours, wanted = final_state(torture), final_state(peace)
    same = {name for name in ours.keys() & wanted.keys() if ours[name].tobytes() == wanted[name].tobytes()}
    logs = [(workdir / "metrics.jsonl").read_bytes() for workdir in (peace, torture)]
    return {
        "arrays": len(wanted),
        "numbers": sum(array.size for array in wanted.values()),
        "arrays that differ": sorted((ours.keys() | wanted.keys()) - same),
        "lines of metrics": logs[0].count(b"\n"),
        "metrics equal": logs[0] == logs[1],
        "damaged": sorted(path.name for path in torture.glob("damaged/*")),
    }


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    try:
        output = check_place(_OUTPUT.value)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    top = Path(_WORKDIR.value).expanduser().absolute()
    more = [f"--config.steps={_STEPS.value}", *arguments[1:]]
    render_frames(top / "frames")
    peace, torture = top / "peace", top / "torture"
    finish(peace, more)  # compiles, too
    moments, kills, longest_s = random.Random(_SEED.value), [], LONGEST_S
    print("kill  aimed at    after s  checkpoints  lines  half-written")
    for number in range(_KILLS.value):
        left = kill_once(torture, moments, number % 2 == 0, longest_s, _STEPS.value, more)
        if not left:
            break
        kills.append(left)
        if left["aimed at"] == "a save":  # This shows how long a start takes.
            longest_s = min(longest_s, left["after seconds"])
        print(f"{number + 1:4}  {left['aimed at']:10}  {left['after seconds']:7}  {left['checkpoints']!s:11}", end="  ")
        print(f"{left['lines of metrics']:5}  {', '.join(left['half-written'])}", flush=True)
    finish(torture, more)
    # What lies half-written after the others may be of an earlier kill.
    during_save = sum(kill["aimed at"] == "a save" and bool(kill["half-written"]) for kill in kills)
    report = {"kills": kills, "killed": len(kills), "during a save": during_save}
    report |= {"steps": _STEPS.value, "seed": _SEED.value} | compare(peace, torture)
    lost = report["arrays that differ"] or not report["metrics equal"] or len(kills) < _KILLS.value
    report["verdict"] = "something differs" if lost else "nothing lost"
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({name: value for name, value in report.items() if name != "kills"}, indent=2))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    app.run(main)
