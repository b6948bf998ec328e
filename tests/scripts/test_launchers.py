"""The launchers for clusters, with stand-ins for the cluster's commands that write down what they were asked."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.scripts.trainings import ROOT

STAND_IN = """#!{python}
import json, os, pathlib, sys
name, folder = pathlib.Path(__file__).name, pathlib.Path(__file__).parent
seen = {{key: os.environ.get(key) for key in ("JAX_LOCAL_DEVICE_IDS", "SRUN_CPUS_PER_TASK")}}
with open(folder / "calls", "a") as calls:
    calls.write(json.dumps([name, sys.argv[1:], os.getcwd(), seen]) + "\\n")
statuses = folder / (name + ".statuses")
left = statuses.read_text().split() if statuses.exists() else ["0"]
statuses.write_text(" ".join(left[1:] or left))
sys.exit(int(left[0]))
"""


@pytest.fixture
def launch(tmp_path):
    """`launch(script, arguments, statuses, **environment)`: the exit status, and what the stand-ins were asked."""

    def launch(script, arguments, statuses, **environment):
        for name in ("srun", "scontrol", "gcloud"):
            (tmp_path / name).write_text(STAND_IN.format(python=sys.executable))
            (tmp_path / name).chmod(0o755)
        for name, values in statuses.items():
            (tmp_path / f"{name}.statuses").write_text(" ".join(map(str, values)))
        path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", ROOT / "scripts/launch" / script, *arguments],
            env=path | environment,
            capture_output=True,
            text=True,
        )
        calls = tmp_path / "calls"
        return done, [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    return launch


JOB = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "77"}
FLAGS = ["--config=configs/stage1.py", "--workdir=a folder"]


@pytest.mark.parametrize(("status", "requeues"), [(75, True), (0, False), (1, False)])
def test_slurm_queues_a_job_again_only_if_it_was_stopped_and_saved(launch, status, requeues):
    done, calls = launch("slurm.sh", FLAGS, {"srun": [status]}, **JOB)
    assert done.returncode == status, done.stderr
    training = ["--kill-on-bad-exit=0", ".venv/bin/python", "scripts/train.py", "--distributed=auto", *FLAGS]
    none = {"JAX_LOCAL_DEVICE_IDS": None, "SRUN_CPUS_PER_TASK": None}
    assert calls[0] == ["srun", training, str(ROOT), none]
    assert [call[:2] for call in calls[1:]] == ([["scontrol", ["requeue", "77"]]] if requeues else [])


def test_slurm_gives_a_process_all_gpus_and_cores_of_its_node(launch):
    _, calls = launch("slurm.sh", FLAGS, {}, **JOB, SLURM_GPUS_ON_NODE="4", SLURM_CPUS_PER_TASK="16")
    assert calls[0][3] == {"JAX_LOCAL_DEVICE_IDS": "0,1,2,3", "SRUN_CPUS_PER_TASK": "16"}


def test_slurm_says_how_it_is_started(launch):
    done, calls = launch("slurm.sh", FLAGS, {})
    assert done.returncode != 0 and "submit this with sbatch, from the repository" in done.stderr and not calls


def test_a_tpu_pod_starts_again_until_the_run_ends(launch):
    done, calls = launch("tpu_pod.sh", ["pod", "zone", "a folder", *FLAGS], {"gcloud": [75, 75, 3]})
    assert done.returncode == 3 and len(calls) == 3 and calls[0] == calls[1] == calls[2]
    *how, command = calls[0][1]
    assert how == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=zone", "--worker=all"]
    asked = command.removeprefix("--command=")
    training = [".venv/bin/python", "scripts/train.py", "--distributed=auto", *FLAGS]
    assert shlex.split(asked) == ["cd", "a folder", "&&", *training]


def test_a_tpu_pod_says_how_it_is_started(launch):
    done, calls = launch("tpu_pod.sh", ["pod", "zone", "folder"], {})
    assert done.returncode == 2 and "usage" in done.stderr and not calls
