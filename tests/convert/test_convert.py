"""Official checkpoints in and out: exact both ways, every tensor accounted for, every fault named."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from tests.convert.test_safetensors_file import write
from tests.golden import recipe
from tests.models import reference
from toontalker_jax.checkpoints import load_model, save_model
from toontalker_jax.convert.convert import convert, export
from toontalker_jax.convert.safetensors_file import open_safetensors_file
from toontalker_jax.convert.torch_file import open_torch_file
from toontalker_jax.convert.torch_writer import write_torch_file
from toontalker_jax.models.config import ModelConfig

CONFIG = ModelConfig(image_size=64, width=16, motion_slots=2, channel_base=512, channel_cap=16)
DOMAINS = {"in-domain": ("real",), "cross-domain": ("real", "cartoon")}


def params(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def models(tiny_model):
    return {kind: tiny_model(domains, config=CONFIG) for kind, domains in DOMAINS.items()}


@pytest.mark.parametrize("kind", DOMAINS)
def test_out_and_in_again_is_exact(models, kind, tmp_path):
    write_torch_file(tmp_path / "file.pt", export(models[kind]))
    converted = convert(open_torch_file(tmp_path / "file.pt"))
    assert (converted.kind, converted.model.config) == (kind, CONFIG)
    assert_same(params(converted.model), params(models[kind]))
    assert_same(export(converted.model), export(models[kind]))


def test_the_reference_network_leaves_as_its_own_state_dicts():
    """Names, shapes and values of both state dicts at 64 px, but for the cartoon's own queries, which nothing reads."""
    tree, shapes = export(reference.network(64)), reference.manifest(64)
    for salt in ("gen", "gen_real"):
        assert {name: array.shape for name, array in tree[salt].items()} == shapes
        for name in shapes:
            query = name.startswith(("dec.transformerlayer_0.", "dec.transformerlayer_1."))
            if not name.endswith(".kernel"):
                expected = recipe.values(name, shapes[name], "gen_real" if query else salt)
                np.testing.assert_array_equal(tree[salt][name], expected)


def test_the_ledger_names_every_tensor(models):
    tree = export(models["cross-domain"]) | {"disc": {"a": np.zeros(1)}, "step": 3}
    ledger = convert(tree).ledger
    listed = ledger["used"] + ledger["constant"] + ledger["never_read"]
    assert sorted(listed) == sorted(f"{key}/{name}" for key in ("gen", "gen_real") for name in tree[key])
    assert ledger["ignored"] == ["disc", "step"]
    assert all(name.endswith(".kernel") for name in ledger["constant"])
    assert {name.split(".")[1] for name in ledger["never_read"]} == {"transformerlayer_0", "transformerlayer_1"}
    assert all(name.startswith("gen/") for name in ledger["never_read"])


def test_the_shared_queries_come_from_the_real_network(models):
    tree = export(models["cross-domain"])
    for name in tree["gen"]:
        if name.startswith("dec.transformerlayer_0."):
            tree["gen"][name] = np.full_like(tree["gen"][name], 7)
    assert_same(params(convert(tree).model), params(models["cross-domain"]))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(models, dtype):
    tree = jax.tree.map(lambda array: array.astype(dtype), export(models["in-domain"]))
    expected = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32), params(models["in-domain"]))
    assert_same(params(convert(tree).model), expected)


FAULTS = {
    "gen/dec.mlp.bias is missing": lambda state: state.pop("dec.mlp.bias"),
    r"gen/dec.mlp.bias has shape \(3,\), not \(160,\)": lambda state: state.update({"dec.mlp.bias": np.zeros(3)}),
    "gen/dec.extra is unknown": lambda state: state.update({"dec.extra": np.zeros(3)}),
    "gen/dec.mlp.bias is not finite": lambda state: state.update({"dec.mlp.bias": np.full(160, np.nan)}),
    "gen/dec.mlp.bias is int8, not floating": lambda state: state.update({"dec.mlp.bias": np.zeros(160, np.int8)}),
    r"gen/enc.convs.1.skip.0.kernel is not 1 ·": lambda state: state.update(
        {"enc.convs.1.skip.0.kernel": np.ones((4, 4))}
    ),
    "gen/dec.direction.weight is missing": lambda state: state.pop("dec.direction.weight"),
    r"gen/dec.direction.weight has shape \(\), not \[slots, width\]": lambda state: state.update(
        {"dec.direction.weight": np.float32(0)}
    ),
    "gen/enc.convs.0.0.weight is missing": lambda state: state.pop("enc.convs.0.0.weight"),
    r"gen/enc.convs.0.0.weight has shape \(\), not \[C, 3, 1, 1\]": lambda state: state.update(
        {"enc.convs.0.0.weight": np.float32(0)}
    ),
    "gen/enc.convs.2.skip.1.weight is missing": lambda state: state.pop("enc.convs.2.skip.1.weight"),
    "gen/enc.convs.4.skip.1.weight is missing": lambda state: state.pop("enc.convs.4.skip.1.weight"),
    r"gen/enc.convs.3.skip.1.weight has shape \(5,\), not \[C, C, 1, 1\]": lambda state: state.update(
        {"enc.convs.3.skip.1.weight": np.zeros(5)}
    ),
    "gen has the sizes of none": lambda state: state.update({"dec.direction.weight": np.zeros((2, 7))}),
    "channels by resolution": lambda state: state.update({"enc.convs.2.skip.1.weight": np.zeros((5, 16, 1, 1))}),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_fault_is_named(models, message):
    tree = export(models["in-domain"])
    FAULTS[message](tree["gen"])
    with pytest.raises(ValueError, match=message) as caught:
        convert(tree)
    assert "\n" not in str(caught.value)


def test_another_network_is_told_by_its_names():
    with pytest.raises(ValueError, match=r"gen is not .* no enc.convs.*begin with conv1, fc \(another network's file"):
        convert({"gen": {"conv1.weight": np.zeros(1), "conv1.bias": np.zeros(1), "fc.weight": np.zeros(1)}})
    with pytest.raises(ValueError, match="gen is not an official network: no enc.convs.*; it is empty"):
        convert({"gen": {}})


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_wrapped_networks_convert_and_the_ledger_has_their_names(models, prefix):
    tree = export(models["cross-domain"])
    tree["gen_real"] = {prefix + name: array for name, array in tree["gen_real"].items()}
    converted = convert(tree)
    assert_same(params(converted.model), params(models["cross-domain"]))
    listed = converted.ledger["used"] + converted.ledger["constant"] + converted.ledger["never_read"]
    assert sorted(listed) == sorted(f"{key}/{name}" for key in ("gen", "gen_real") for name in tree[key])


@pytest.mark.parametrize("tree", [{"model": 1}, {"gen": 1}, {}, [1]], ids=str)
def test_another_file_is_no_official_checkpoint(tree):
    with pytest.raises(ValueError, match="no network under 'gen'"):
        convert(tree)


def test_networks_of_two_sizes_are_refused(tiny_model, models):
    larger = export(tiny_model(("real",), config=dataclasses.replace(CONFIG, width=24, channel_cap=24)))
    with pytest.raises(ValueError, match="differ in size"):
        convert({"gen": export(models["in-domain"])["gen"], "gen_real": larger["gen"]})


@pytest.mark.parametrize(
    ("domains", "changes", "message"),
    [
        (("cartoon",), {}, "need the real one"),
        (("real",), {"heads": 4}, "heads = 4"),
        (("real",), {"align_corners": True}, "align_corners = True"),
        (("real",), {"backward_resolutions": (4, 8, 16)}, "backward_resolutions = "),
        (("real",), {"backward_resolutions": ()}, r"backward_resolutions = \(\)"),
        (("real",), {"query": "mlp"}, "query = mlp"),
        (("real",), {"sft_from": 32}, "sft_from = 32"),
        (("real",), {"width": 24}, "width = 24"),
    ],
)
def test_a_network_that_the_official_files_cannot_hold_is_refused(tiny_model, domains, changes, message):
    with pytest.raises(ValueError, match=message):
        export(tiny_model(domains, config=dataclasses.replace(CONFIG, **changes)))


def test_the_scripts_there_and_back(run_script, models, tmp_path):
    save_model(tmp_path / "model", models["cross-domain"])
    first, second, converted = tmp_path / "first.pt", tmp_path / "second.pt", tmp_path / "converted"
    for name, *arguments in (
        ("export_checkpoint", f"--checkpoint={tmp_path / 'model'}", f"--output={first}"),
        ("convert_checkpoint", f"--input={first}", f"--output={converted}"),
        ("export_checkpoint", f"--checkpoint={converted}", f"--output={second}"),
    ):
        done = run_script(name, *arguments)
        assert done.returncode == 0, done.stderr
    assert first.read_bytes() == second.read_bytes()
    assert_same(params(load_model(converted)), params(models["cross-domain"]))
    notes = json.loads((converted / "conversion.json").read_text())
    assert notes["source"]["name"] == "first.pt" and notes["source"]["bytes"] == first.stat().st_size
    assert len(notes["source"]["sha256"]) == 64 and notes["kind"] == "cross-domain"
    again = run_script("convert_checkpoint", f"--input={first}", f"--output={converted}")
    assert again.returncode == 1 and "exists already" in again.stderr and again.stderr.count("\n") == 1


def test_the_script_takes_safetensors(run_script, models, tmp_path):
    tree = export(models["cross-domain"])
    named = {f"{key}.{name}": array for key, state in tree.items() for name, array in state.items()}
    write(tmp_path / "file.pth", named)  # its content tells, not its name
    done = run_script("convert_checkpoint", f"--input={tmp_path / 'file.pth'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert_same(params(load_model(tmp_path / "out")), params(models["cross-domain"]))


def test_a_fault_of_the_network_names_the_file(run_script, tmp_path):
    write_torch_file(tmp_path / "other.pt", {"gen": {"conv1.weight": np.zeros(1, np.float32)}})
    done = run_script("convert_checkpoint", f"--input={tmp_path / 'other.pt'}", f"--output={tmp_path / 'out'}")
    assert done.stderr.startswith(f"error: {tmp_path / 'other.pt'}: gen is not an official network")


def test_a_folder_that_is_missing_is_told_before_anything_is_loaded(run_script, tmp_path):
    done = run_script("export_checkpoint", f"--checkpoint={tmp_path / 'none'}", f"--output={tmp_path / 'no' / 'a.pt'}")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {tmp_path / 'no'}: no such folder")


def test_a_folder_is_no_input(tmp_path):
    for opener in (open_torch_file, open_safetensors_file):
        with pytest.raises(ValueError, match="is a folder"):
            opener(tmp_path)


def test_a_bad_file_leaves_nothing_behind(run_script, tmp_path):
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 and no more")
    done = run_script("convert_checkpoint", f"--input={tmp_path / 'bad.pt'}", f"--output={tmp_path / 'out'}")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "bad.pt" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt"]
