"""Scripts in processes forked from one that has imported what most of them need: a start saves three seconds."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tensorflow_datasets", "toontalker_jax.video_reenactor", "data_pipelines.loaders"])


def run(name: str, *arguments: object) -> subprocess.CompletedProcess:
    """`python -W error scripts/NAME.py ARGUMENTS…`, with the environment of this process's first call."""
    command = [f"scripts/{name}.py", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / "stdout", Path(folder) / "stderr"]
        process = _SERVER.Process(target=_run, args=(command, *streams))
        process.start()
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode, *(stream.read_text() for stream in streams))


def _run(command: list[str], stdout: Path, stderr: Path) -> None:
    for stream, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "scripts"))
    warnings.simplefilter("error")
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
