"""Official-format files that torch wrote (fixtures/, see make_fixtures.py): every number, every name, every fault."""

import errno
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from tests.convert import official
from toontalker_jax.checkpoints import load_model, save_model
from toontalker_jax.convert.convert import convert, export
from toontalker_jax.convert.lazy_tensor import LazyTensor
from toontalker_jax.convert.torch_file import open_torch_file
from toontalker_jax.convert.torch_writer import write_torch_file
from toontalker_jax.models.config import ModelConfig

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
CONFIG = ModelConfig(image_size=64, width=8, motion_slots=2, channel_base=256, channel_cap=8)
# file → its networks {key: salt of the recipe}, their dtype, its other top-level keys
EXTRAS = ["dis", "g_optim", "d_optim", "args"]
FILES = {
    "cross_domain.pth": ({"gen": "gen", "gen_real": "gen_real"}, np.float32, EXTRAS),
    "in_domain_legacy.pth": ({"gen": "gen_real"}, np.float32, EXTRAS),
    "in_domain_bfloat16.pth": ({"gen": "gen_real"}, ml_dtypes.bfloat16, []),
}
QUERIES = ("dec.transformerlayer_0.", "dec.transformerlayer_1.")


def states(name):
    """What the file's networks hold, from the recipe."""
    networks, dtype, _ = FILES[name]
    return {
        key: {official_name: array.astype(dtype) for official_name, array in official.state(salt).items()}
        for key, salt in networks.items()
    }


def params(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.mark.parametrize("name", FILES)
def test_every_number_of_a_torch_file_arrives(name):
    """Out again, name by name, as the recipe has it; but for the cartoon's own queries, which nothing reads."""
    tree = open_torch_file(FIXTURES / name)
    converted = convert(tree)
    kind = "cross-domain" if len(FILES[name][0]) > 1 else "in-domain"
    assert (converted.kind, converted.model.config) == (kind, CONFIG)
    exported, expected = export(converted.model), states(name)
    assert exported.keys() == expected.keys()
    for key, state in expected.items():
        assert exported[key].keys() == state.keys() == tree[key].keys()
        for official_name, array in state.items():
            source = expected["gen_real"] if key == "gen" and kind != "in-domain" else state
            array = source[official_name] if official_name.startswith(QUERIES) else array
            np.testing.assert_array_equal(exported[key][official_name], array.astype(np.float32), err_msg=official_name)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_our_own_converts_to_the_same(name, tmp_path):
    write_torch_file(tmp_path / "ours.pth", states(name))
    theirs, ours = convert(open_torch_file(FIXTURES / name)), convert(open_torch_file(tmp_path / "ours.pth"))
    jax.tree.map(np.testing.assert_array_equal, params(theirs.model), params(ours.model))
    for place in ("used", "constant", "never_read"):
        assert sorted(theirs.ledger[place]) == sorted(ours.ledger[place])
    assert ours.ledger["ignored"] == []


@pytest.mark.parametrize("name", FILES)
def test_the_ledger_accounts_for_a_training_file(name):
    networks, _, extras = FILES[name]
    ledger = convert(open_torch_file(FIXTURES / name)).ledger
    names = [f"{key}/{official_name}" for key in networks for official_name in official.shapes()]
    never_read = [n for n in names if len(networks) > 1 and n.startswith(tuple(f"gen/{query}" for query in QUERIES))]
    constant = [n for n in names if n.endswith(".kernel")]
    assert sorted(ledger["constant"]) == sorted(constant) and sorted(ledger["never_read"]) == sorted(never_read)
    assert sorted(ledger["used"]) == sorted(set(names) - set(constant) - set(never_read))
    assert ledger["ignored"] == extras


def run(script, *arguments, file_limit=None):
    """The script in a process that may write no file longer than `file_limit` · 512 bytes, as if the disk were full."""
    command = [sys.executable, "-W", "error", f"scripts/{script}_checkpoint.py", *map(str, arguments)]
    if file_limit is not None:  # Python ignores the signal of it, so that such a write is an OSError
        command = ["sh", "-c", 'ulimit -f "$0" && exec "$@"', str(file_limit), *command]
    return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)


def assert_refused(done, folder, message, kept):
    """One line of error, and in the folder only what was there."""
    assert done.returncode == 1 and done.stdout == "", done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and message in done.stderr, done.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(kept)


def test_a_training_file_of_torch_converts_at_the_command_line(tmp_path):
    done = run("convert", f"--input={FIXTURES / 'cross_domain.pth'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.endswith("out: cross-domain, 64 px; 420 used, 56 constant, 36 never read, 4 ignored\n")
    expected = params(convert(open_torch_file(FIXTURES / "cross_domain.pth")).model)
    jax.tree.map(np.testing.assert_array_equal, params(load_model(tmp_path / "out")), expected)
    assert json.loads((tmp_path / "out" / "conversion.json").read_text())["ledger"]["ignored"] == EXTRAS
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_home_folder_is_found_on_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(FIXTURES / "in_domain_bfloat16.pth", tmp_path / "theirs.pth")
    for script, *arguments in (
        ("convert", "--input=~/theirs.pth", "--output=~/model"),
        ("export", "--checkpoint=~/model", "--output=~/ours.pth"),
    ):
        done = run(script, *arguments)
        assert done.returncode == 0 and done.stdout.startswith(str(tmp_path)), done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "ours.pth", "theirs.pth"]


def test_a_disk_too_small_is_one_line_and_leaves_nothing(tmp_path):
    done = run("convert", f"--input={FIXTURES / 'cross_domain.pth'}", f"--output={tmp_path / 'out'}", file_limit=200)
    assert_refused(done, tmp_path, "out could not be written, nothing of it is kept: ", kept=[])
    assert len(done.stderr) < 600


def test_an_export_to_a_disk_too_small_is_one_line_and_leaves_nothing(tmp_path):
    save_model(tmp_path / "model", convert(open_torch_file(FIXTURES / "in_domain_bfloat16.pth")).model)
    arguments = f"--checkpoint={tmp_path / 'model'}", f"--output={tmp_path / 'out.pth'}"
    done = run("export", *arguments, file_limit=100)
    assert_refused(done, tmp_path, "out.pth could not be written, nothing of it is kept: ", kept=["model"])


def test_a_full_disk_while_a_model_is_replaced_keeps_the_old_one(tmp_path, monkeypatch):
    model = convert(open_torch_file(FIXTURES / "in_domain_bfloat16.pth")).model
    save_model(tmp_path / "model", model)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(tmp_path / "x"), "write_text", full)
    monkeypatch.setattr("etils.epath.Path.write_text", full, raising=False)
    with pytest.raises(OSError, match=r"model could not be written, nothing of it is kept: .*No space left"):
        save_model(tmp_path / "model", model, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    jax.tree.map(np.testing.assert_array_equal, params(load_model(tmp_path / "model")), params(model))


def test_a_tensor_is_let_go_before_the_next_is_read(monkeypatch):
    """What numpy() read from the file is alive once at most, however large the file."""
    owners, most, read = [], [0], LazyTensor.numpy

    def numpy(self):
        array = read(self)
        owner = array
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        owners.append(weakref.ref(owner))
        most[0] = max(most[0], sum(reference() is not None for reference in owners))
        return array

    monkeypatch.setattr(LazyTensor, "numpy", numpy)
    convert(open_torch_file(FIXTURES / "cross_domain.pth"))
    assert len(owners) == 2 * len(official.shapes()) - 36  # the cartoon's own queries stay unread
    assert most[0] == 1
