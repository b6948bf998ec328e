"""scripts/compile_check.py without a compiler: the batch it asks for, its errors, what it finds and keeps."""

import contextlib
import importlib.util
import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from scripts import compile_check, compile_once
from toontalker_jax.training import ahead_of_time

GIB = 2**30


# ml_collections loads the recipe in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """`parse(options…)`: sets the flags, for this test only."""

    def call(*options):
        saved.enter_context(flagsaver.flagsaver())
        # The parser of --config looks there for what it is to override.
        monkeypatch.setattr(
            sys, "argv", ["compile_check", "--config=configs/stage1.py", f"--cache={tmp_path}", *options]
        )
        flags.FLAGS(sys.argv)

    effort = jax.config.jax_exec_time_optimization_effort
    with contextlib.ExitStack() as saved:
        yield call
    jax.config.update("jax_exec_time_optimization_effort", effort)


@pytest.fixture
def run(parse):
    """`run(options…)`: main on the first stage's recipe; gives the exit status or the message of the error."""

    def call(*options):
        parse(*options)
        with pytest.raises(SystemExit) as ended:
            compile_check.main([])
        return ended.value.code

    return call


@pytest.fixture
def compiled(monkeypatch):
    """The batches that were "compiled" so far, by a compiler for which 2 GiB and 1 GiB a row are needed."""
    batches = []

    def step_on(config, topology):
        lowered = SimpleNamespace(as_text=lambda: f"program for {config.batch_size}", batch=config.batch_size)
        leaf = jax.ShapeDtypeStruct((8, 8), np.float32)
        return SimpleNamespace(
            function=SimpleNamespace(lower=lambda x: lowered), arguments=(leaf,), argument_bytes=2 * GIB
        )

    def compile_report(lowered, chip):
        batches.append(lowered.batch)
        needed = 2 * GIB + lowered.batch // 4 * GIB
        report = {"fits": needed <= chip.available, "needed": needed, "available": chip.available}
        report["compile_seconds"] = 1.0
        if report["fits"]:
            report["memory"] = {"arguments": 2 * GIB, "outputs": 0, "temporaries": needed - 2 * GIB, "code": 0}
            report |= {
                "collective_bytes": {"all-reduce": 4e9},
                "sent_bytes": 6e9,
                "xla_flops": 1e12,
                "xla_bytes": 5e12,
                "least_traffic": 819e9,
                "xla_peak": needed - GIB,
            }
        return report

    monkeypatch.setattr(ahead_of_time, "step_on", step_on)
    monkeypatch.setattr(ahead_of_time, "compile_report", compile_report)
    monkeypatch.setattr(ahead_of_time, "libtpu_version", lambda: "0")
    monkeypatch.setattr(compile_once, "count_flops", lambda function, *arguments: 4 * 197e12)
    return batches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--topology=v9:2x2"], "topology = 'v9:2x2': know v4, v5e, v5p, v6e"),
        (["--topology=v5e:16x16"], "a batch of 64 does not divide among 256 chips × accumulate = 1: pass --batch_per_"),
        (["--topology=v5e:2x2", "--batch=10"], "a batch of 10 does not divide among 4 chips"),
        (["--topology=v5e:2x2", "--batch=8", "--batch_per_chip=8"], "one of them"),
        (["--topology=v5e:2x2", "--config.stage=3"], "config.stage = 3"),
    ],
)
def test_mistakes_are_named_before_anything_is_compiled(run, options, message, monkeypatch):
    devices = jax.devices()[:4]
    monkeypatch.setattr(ahead_of_time, "tpu_devices", lambda topology: devices)
    assert message in run(*options)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="the compiler is installed")
def test_without_the_compiler_it_says_what_to_install(run):
    assert run("--topology=v5e:2x2") == ("error: the TPU compiler, libtpu, is not installed: pip install -e '.[tpu]'.")


def test_a_step_that_fits_is_reported_and_kept(run, compiled, tmp_path, capsys):
    output = tmp_path / "out.json"
    for _ in range(2):  # The second time from the cache.
        assert run("--topology=v5e:2x2", "--batch_per_chip=4", f"--output={output}") == 0
        printed = capsys.readouterr()
        report = json.loads(printed.out)
        assert report == json.loads(output.read_text())
    assert compiled == [16]
    assert (report["batch"], report["batch_per_chip"], report["chips"], report["fits"]) == (16, 4, 4, True)
    assert report["seconds"] == {"compute": 1.0, "hbm": 1.0, "ici": 0.03, "roofline": 1.0, "at_40_percent": 2.5}
    assert "6.00 GiB; a program may use 15.75 GiB" in printed.err
    assert "all-reduce 4.000 GB" in printed.err
    assert not list(tmp_path.glob("*.[0-9]*"))  # half-written results
    run("--topology=v5e:2x2", "--batch_per_chip=4", "--effort=-1")
    assert compiled == [16, 16]


def test_the_recipes_own_batch_is_the_default(run, compiled):
    run("--topology=v5e:4x4", "--nosearch")
    assert compiled == [64]


def test_a_step_that_does_not_fit_names_the_batch_that_does(run, compiled, capsys):
    assert run("--topology=v5e:2x2", "--batch_per_chip=16") == 1
    assert compiled == [64, 48]
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "does not fit: 18.00 GiB of 15.75 GiB a chip; reduce batch_per_chip to 12"


def test_the_penalty_counts_for_its_share_of_the_steps(parse, compiled, monkeypatch):
    counts = iter([20.0, 4.0])  # with it, without
    monkeypatch.setattr(compile_once, "count_flops", lambda *_: next(counts))
    parse("--topology=v5e:2x2", "--config.r1.gamma=1.0")
    config = compile_check.CONFIG.value
    step = ahead_of_time.step_on(config, "v5e:2x2")
    assert compile_once.flops_a_step(config, step) == 4.0 + 16.0 / config.r1.every
