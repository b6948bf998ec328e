"""What fails for one of several pairs, and what several cost before the first is made."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from scripts.reenactments.attempts import Attempts
from tests.script_server import ROOT

NO_MEMORY = "RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\na page of buffers"
ADVICE = "RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes: lower --batch_size, or --dtype=bfloat16"


def fail(error):
    raise error


def test_memory_that_is_out_for_one_pair_is_one_line_and_the_others_go_on(capsys):
    attempt = Attempts(several=True)
    assert attempt(Path("a.mp4"), fail, jax.errors.JaxRuntimeError(NO_MEMORY)) is None
    assert attempt(Path("b.mp4"), fail, ValueError("b.mp4: no face")) is None
    assert attempt(Path("c.mp4"), max, 1, 2) == 2
    assert attempt.failures == [f"a.mp4: {ADVICE}", "b.mp4: no face"]
    assert capsys.readouterr().err == f"error: a.mp4: {ADVICE}\nerror: b.mp4: no face\n"
    with pytest.raises(TypeError):
        attempt(Path("d.mp4"), fail, TypeError("a mistake of ours is no pair's"))
    with pytest.raises(OSError, match="full"):
        Attempts(several=False)(Path("e.mp4"), fail, OSError("full"))


def test_memory_that_is_out_and_ctrl_c_end_the_script_in_one_line():
    program = (
        "import sys, jax\nfrom scripts import reenact\n"
        f"errors = [KeyboardInterrupt(), jax.errors.JaxRuntimeError({NO_MEMORY!r})]\n"
        "def stopped(): raise errors.pop(0)\n"
        "reenact.run = stopped\n"
        "reenact.app.flags.FLAGS(sys.argv)\n"
        "try: reenact.main(sys.argv[:1])\n"
        "except SystemExit as end: print(end.code)\n"
        "reenact.main(sys.argv[:1])"
    )
    options = [f"--{name}=none" for name in ("checkpoint", "source_path", "driving_path")]
    done = subprocess.run([sys.executable, "-c", program, *options], cwd=ROOT, capture_output=True, text=True)
    ctrl_c = "stopped by Ctrl-C: of the unfinished file nothing is kept."
    assert (done.returncode, done.stdout, done.stderr) == (1, "130\n", f"{ctrl_c}\nerror: {ADVICE}\n")
