"""Inference checkpoints and training checkpoints: what is written comes back, and what does not fit is one error."""

import itertools
import json
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from fsspec.implementations.memory import MemoryFileSystem

from toontalker_jax.checkpoints import TrainCheckpoints, agreement, has_steps, load_model, read_config, save_model
from toontalker_jax.checkpoints.format import absolute, put_aside
from toontalker_jax.models.config import ModelConfig


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model(("real",))


def params_of(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def assert_same(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)  # also raises when the structures differ


def train_state(slots=2, optimizer=None):
    """A state as training keeps it, with one small parameter."""
    params = {"motion_base": jnp.arange(slots * 3, dtype=jnp.float32).reshape(slots, 3)}
    state = {"generator": params, "discriminator": {}, "step": jnp.int32(0)}
    return state if optimizer is None else {**state, "optimizer": optimizer.init(params)}


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def test_a_saved_model_comes_back(tmp_path, model):
    save_model(tmp_path / "model", model)
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    assert tuple(loaded.domains) == ("real",)
    assert read_config(tmp_path / "model") == (model.config, ("real",))
    assert_same(params_of(loaded), params_of(model))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing half-written is left


def test_an_existing_checkpoint_is_only_replaced_when_asked(tmp_path, model, tiny_model):
    save_model(tmp_path / "model", model)
    other = tiny_model(("real",), seed=1)
    with pytest.raises(FileExistsError, match="exists already"):
        save_model(tmp_path / "model", other)
    assert_same(params_of(load_model(tmp_path / "model")), params_of(model))
    save_model(tmp_path / "model", other, overwrite=True)
    assert_same(params_of(load_model(tmp_path / "model")), params_of(other))


def test_a_save_survives_the_remains_of_a_killed_one(tmp_path, model):
    (tmp_path / "model.partial" / "params" / "rubbish").mkdir(parents=True)
    (tmp_path / "model.partial" / "conversion.json").write_text("{}")
    (tmp_path / "model.older" / "params").mkdir(parents=True)
    for overwrite in (False, True):
        save_model(tmp_path / "model", model, overwrite=overwrite)
        assert_same(params_of(load_model(tmp_path / "model")), params_of(model))
        assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["digests.json", "model.json", "params"]


def test_what_is_no_checkpoint_is_told(tmp_path):
    (tmp_path / "official.pth").touch()
    told = {"": "neither model.json", "none": "none does not exist", "official.pth": "convert it first.*--input=.*pth"}
    for (name, message), read in itertools.product(told.items(), (load_model, read_config)):
        with pytest.raises(FileNotFoundError, match=message):
            read(tmp_path / name)


def test_the_description_of_a_workdir_is_its_newest_readable_steps(tmp_path):
    with TrainCheckpoints(tmp_path, keep_newest=3) as checkpoints:
        for step, width in ((1, 16), (2, 32), (3, 64)):
            checkpoints.save(step, train_state(), ModelConfig(width=width), DOMAINS)
    (tmp_path / "checkpoints/3/model/metadata").write_text("{")
    shutil.rmtree(tmp_path / "checkpoints/2/state")  # the parameters are not looked at
    assert read_config(tmp_path) == (ModelConfig(width=32), DOMAINS)


def edit_model_json(path, **changes):
    description = json.loads((path / "model.json").read_text())
    description["config"].update(changes.pop("config", {}))
    (path / "model.json").write_text(json.dumps(description | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": {"motion_slot": 3}}, "does not know: motion_slot"),
        ({"format": 99}, "format 99"),
        ({"config": {"motion_slots": 3}}, r"does not fit .*is \(2, 16\), wanted \(3, 16\)"),
        ({"domains": ["real", "cartoon"]}, "domains/cartoon/.* is missing"),
        ({"domains": ["cartoon"]}, "domains/cartoon/.* is missing"),
    ],
)
def test_a_mismatch_is_one_clear_line(tmp_path, model, changes, message):
    save_model(tmp_path / "model", model)
    edit_model_json(tmp_path / "model", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


CONFIG, DOMAINS = ModelConfig(), ("real",)


def test_training_states_come_back_with_their_metadata(tmp_path):
    state = train_state(optimizer=optax.adam(1e-3))
    with TrainCheckpoints(tmp_path, keep_newest=2, keep_every=4) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (4, 5, 6, 7):
            metadata = {"stage": 1, "seen": 8 * step}
            checkpoints.save(step, state | {"step": jnp.int32(step)}, CONFIG, DOMAINS, metadata)
    with TrainCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 7
        newest = checkpoints.restore(abstract(state))
        assert (newest.step, newest.metadata) == (7, {"stage": 1, "seen": 56})
        assert_same(newest.state, state | {"step": jnp.int32(7)})
        assert checkpoints.restore(abstract(state), step=4).state["step"] == 4  # kept: a multiple of keep_every
        with pytest.raises(FileNotFoundError, match=r"no step 5; it has \[4, 6, 7\]"):
            checkpoints.restore(abstract(state), step=5)
        with pytest.raises(ValueError, match="has step 7 already"):
            checkpoints.save(7, state, CONFIG, DOMAINS)


def test_a_save_in_the_background_is_not_disturbed_by_donation(tmp_path):
    @partial(jax.jit, donate_argnums=0)
    def overwrite(state):
        return jax.tree.map(lambda leaf: leaf + 1, state)

    state = train_state(slots=100_000)
    expected = jax.tree.map(np.array, state)
    with TrainCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, CONFIG, DOMAINS)
        state = overwrite(state)
        checkpoints.wait()
        assert_same(checkpoints.restore(abstract(state)).state, expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (train_state(3, optax.adam(1e-3)), r"generator/motion_base is \(2, 3\), wanted \(3, 3\)"),
        (train_state(2, optax.sgd(1e-3, momentum=0.9)), "optimizer/.* is missing"),
        (train_state(2), "optimizer/.* is not part"),
    ],
)
def test_a_training_state_of_another_network_is_one_clear_line(tmp_path, other, message):
    with TrainCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(1, train_state(2, optax.adam(1e-3)), CONFIG, DOMAINS)
        with pytest.raises(ValueError, match=message) as caught:
            checkpoints.restore(abstract(other))
    assert "\n" not in str(caught.value)


def test_a_workdir_loads_as_the_model_of_its_newest_step(tmp_path, model):
    state = {"generator": params_of(model), "optimizer": jnp.zeros(3)}
    newer = {"generator": jax.tree.map(lambda leaf: leaf + 1, params_of(model))}
    average = {"generator_ema": jax.tree.map(lambda leaf: leaf + 2, params_of(model))}
    with TrainCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state | {"generator_ema": {}}, model.config, ("real",))
        checkpoints.wait()
        assert_same(params_of(load_model(tmp_path)), params_of(model))  # an empty average is none
        checkpoints.save(2, state | newer, model.config, ("real",))
        checkpoints.wait()
        loaded = load_model(tmp_path)
        assert loaded.config == model.config
        assert_same(params_of(loaded), newer["generator"])
        checkpoints.save(3, state | newer | average, model.config, ("real",))
    assert_same(params_of(load_model(tmp_path)), average["generator_ema"])


def test_a_state_without_a_generator_is_refused(tmp_path):
    with TrainCheckpoints(tmp_path) as checkpoints, pytest.raises(KeyError, match="no 'generator'"):
        checkpoints.save(1, {"params": jnp.zeros(3)}, CONFIG, DOMAINS)


def test_paths_start_at_the_root_but_in_buckets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(absolute("runs/1")) == str(absolute("~/runs/1")) == f"{tmp_path}/runs/1"
    with pytest.raises(ValueError, match="file:///runs: of the scheme 'file://'"):
        absolute("file:///runs")
    assert str(absolute("gs://bucket/runs/1") / "checkpoints") == "gs://bucket/runs/1/checkpoints"


def test_an_empty_workdir(tmp_path):
    TrainCheckpoints(tmp_path).close()
    with pytest.raises(FileNotFoundError, match="no complete step"):
        load_model(tmp_path)


@pytest.mark.parametrize("keep", [{"keep_newest": 0}, {"keep_newest": -1}, {"keep_every": -1}])
def test_keeping_nothing_is_refused(tmp_path, keep):
    ((name, value),) = keep.items()
    with pytest.raises(ValueError, match=f"{name} = {value}: must be at least {int(name == 'keep_newest')}"):
        TrainCheckpoints(tmp_path, **keep)


def test_processes_that_see_different_checkpoints_do_not_go_on(model, tmp_path, monkeypatch):
    with TrainCheckpoints(tmp_path / "run") as saved:
        saved.save(4, {"generator": params_of(model)}, model.config, ("real",))
    assert has_steps(tmp_path / "run")
    told = []

    def tell(value):  # as two processes would, of which the other sees something else
        told.append(value)
        return np.stack([value, value + 1])

    monkeypatch.setattr(agreement.jax, "process_count", lambda: 2)
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", tell)
    error = "the processes see different checkpoints in .*, this one {}: it has to lie where all of them see the same"
    with pytest.raises(OSError, match=error.format("a folder")):
        has_steps(tmp_path / "run")
    with pytest.raises(OSError, match=error.format("none")):
        has_steps(tmp_path / "elsewhere")
    assert told[0] != told[1]
    monkeypatch.undo()
    with TrainCheckpoints(tmp_path / "run", read_only=True) as saved:
        monkeypatch.setattr(agreement.jax, "process_count", lambda: 2)
        monkeypatch.setattr(agreement.multihost_utils, "process_allgather", tell)
        with pytest.raises(OSError, match=error.format(r"\[4\]")):
            saved.newest_sound(lambda step: step)
        monkeypatch.undo()

    def tell_late(value):  # the other has the folder, with another step in it
        told.append(value)
        return np.stack([value, value + (len(told) > 1)])

    told.clear()
    monkeypatch.setattr(agreement, "jax", SimpleNamespace(process_count=lambda: 2))  # not what Orbax asks
    monkeypatch.setattr(agreement.multihost_utils, "process_allgather", tell_late)
    with pytest.raises(OSError, match=error.format(r"\[4\]")):
        has_steps(tmp_path / "run")


class Bucket(MemoryFileSystem):
    """Keeps files by their whole names, as a bucket does: no folder is there before something lies in it."""

    protocol, store, pseudo_dirs = ("gs", "gcs"), {}, [""]

    def mkdir(self, path, create_parents=True, **options):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("gs://", "memory://"))


def test_in_a_bucket_a_damaged_step_is_put_aside_too(monkeypatch):
    monkeypatch.setattr(type(absolute("gs://bucket/")._backend), "_get_filesystem", lambda *_: Bucket())
    run = absolute("gs://bucket/run")
    for name in ("4", "4.1"):
        (run / "checkpoints" / "4" / "state" / "array").write_text("broken")
        assert put_aside(run / "checkpoints" / "4", run / "damaged") == run / "damaged" / name
        assert (run / "damaged" / name / "state" / "array").read_text() == "broken"
        assert not (run / "checkpoints" / "4").exists()
