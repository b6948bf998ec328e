"""Training checkpoints of which files are lost or cut short, and disks without room for another one."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from toontalker_jax.checkpoints import Mismatch, TrainCheckpoints, load_model, read_config, save_model
from toontalker_jax.checkpoints.digests import check_digests, digests
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.training.preemption import Preempted
from toontalker_jax.training.processes import free_port

# Where one array fails, Orbax leaves coroutines of the others, and callbacks of an event loop that it has closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG, DOMAINS = ModelConfig(), ("real",)


def state_of(step):
    return {"generator": {"w": jnp.arange(4096.0) + step, "b": jnp.ones(3)}, "optimizer": {}, "step": jnp.int32(step)}


def abstract(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


ABSTRACT = abstract(state_of(0))


@pytest.fixture
def workdir(tmp_path):
    """With the steps 2 and 4."""
    with TrainCheckpoints(tmp_path) as saved:
        for step in (2, 4):
            saved.save(step, state_of(step), CONFIG, DOMAINS, {"seen": step})
    return tmp_path


def lose(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def test_whatever_file_is_lost_or_cut_short_a_step_comes_back_exactly_or_not_at_all(workdir, tmp_path_factory):
    taken = {2: 0, 4: 0}
    for path in sorted((workdir / "checkpoints" / "4").rglob("*")):
        for damage in (lose,) if path.is_dir() else (lose, cut):
            copy = tmp_path_factory.mktemp("copy") / "run"
            shutil.copytree(workdir, copy)
            damage(copy / path.relative_to(workdir))
            with TrainCheckpoints(copy) as saved:
                restored = saved.restore_newest(ABSTRACT)
            taken[restored.step] += 1
            jax.tree.map(np.testing.assert_array_equal, restored.state, state_of(restored.step))
            moved = [] if restored.step == 4 else ["4"]
            assert sorted(path.name for path in copy.glob("damaged/[0-9]*")) == moved
    assert taken[2] >= 15  # The rest are files that say nothing new.


def flip(path, seed):
    """One bit of a file."""
    data, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    data[random.integers(len(data))] ^= 1 << random.integers(8)
    path.write_bytes(data)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def random_weights(step):
    """They cannot be compressed: few flips make a file that cannot be read."""
    return state_of(step) | {"generator": {"w": jax.random.normal(jax.random.key(step), (4096,)), "b": jnp.ones(3)}}


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_of_an_array_is_damage(tmp_path, seed):
    with TrainCheckpoints(tmp_path) as saved:
        for step in (2, 4):
            saved.save(step, random_weights(step), CONFIG, DOMAINS)
    flip(largest_file(tmp_path / "checkpoints" / "4"), seed)
    with TrainCheckpoints(tmp_path) as saved:
        with pytest.raises((OSError, ValueError)):
            saved.restore(ABSTRACT, 4)
        restored = saved.restore_newest(ABSTRACT)
    assert restored.step == 2
    jax.tree.map(np.testing.assert_array_equal, restored.state, random_weights(2))


def test_a_flipped_bit_of_a_model_is_damage_or_does_no_harm(tmp_path, tiny_model):
    model, told = tiny_model(("real",)), 0
    save_model(tmp_path / "model", model)
    data = sorted((tmp_path / "model").rglob("d/*"), key=lambda path: path.stat().st_size)
    for seed in range(40):
        if told and seed >= 6:
            break
        path = data[-1 - seed % len(data)]
        shutil.copytree(tmp_path / "model", tmp_path / str(seed))
        flip(tmp_path / str(seed) / path.relative_to(tmp_path / "model"), seed)
        try:
            loaded = load_model(tmp_path / str(seed))
        except (OSError, ValueError) as error:
            told += "is damaged: the bits of domains/real/" in str(error)
        else:  # a part of the file that nothing refers to
            jax.tree.map(np.testing.assert_array_equal, *(nnx.state(each, nnx.Param) for each in (loaded, model)))
    assert told
    (tmp_path / "model" / "digests.json").unlink()  # as former versions wrote it
    load_model(tmp_path / "model")


def test_whatever_file_of_a_model_is_cut_short_is_one_line(tmp_path, tiny_model):
    model = tiny_model(("real",))
    save_model(tmp_path / "model", model)
    expected, refused = jax.tree.leaves(nnx.state(model, nnx.Param)), 0
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    for path in {(path.parent, path.suffix): path for path in files}.values():  # one of each kind
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "model", copy)
        cut(copy / path.relative_to(tmp_path / "model"))
        try:
            loaded = load_model(copy)
        except OSError as error:
            assert "\n" not in str(error) and str(copy) in str(error) and len(str(error)) < 900
            refused += 1
        else:
            jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(nnx.state(loaded, nnx.Param)), expected)
        shutil.rmtree(copy)
    assert refused > 3


@pytest.mark.parametrize("text", ["{}", "[1]", '{"format": 1}', "{"])
def test_a_description_of_a_model_that_is_damaged_is_one_line(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    for read in (load_model, read_config):
        with pytest.raises(OSError, match=f"{tmp_path}.* is damaged"):
            read(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8", "bool"])
def test_digests_are_the_same_however_an_array_is_divided_and_see_every_bit(dtype):
    values = np.random.default_rng(0).integers(0, 2, (8, 4)).astype(jnp.dtype(dtype))
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    specs = [jax.P(), jax.P("a"), jax.P("b", "a"), jax.P(("a", "b"))]
    divided = [{"x": jax.device_put(values, jax.sharding.NamedSharding(mesh, spec))} for spec in specs]
    assert all(digests(tree) == digests({"x": values}) for tree in divided)
    for bit in range(8 * values.itemsize):
        changed = values.copy()
        changed.view(f"u{values.itemsize}")[3, 1] ^= 1 << bit
        with pytest.raises(OSError, match="here is damaged: the bits of x are not those that were saved\\."):
            check_digests("here", {"x": changed}, digests({"x": values}))


def test_a_damaged_step_is_told_set_aside_and_saved_again(workdir, caplog):
    for times in range(2):
        damaged = workdir / "checkpoints" / "4" / "state" / "manifest.ocdbt"
        damaged.write_bytes(b"")
        with TrainCheckpoints(workdir) as saved:
            assert saved.restore_newest(ABSTRACT).metadata == {"seen": 2}
            assert saved.latest_step() == 2
            saved.save(4, state_of(4 + times), CONFIG, DOMAINS)
        assert "step 4 is damaged and skipped: " in caplog.text and "now lies in " in caplog.text
    with TrainCheckpoints(workdir) as saved:
        restored = saved.restore_newest(ABSTRACT)
    assert restored.step == 4 and restored.state["step"] == 5
    assert sorted(path.name for path in (workdir / "damaged").glob("[0-9]*")) == ["4", "4.1"]
    assert (workdir / "damaged" / "4" / "state" / "manifest.ocdbt").exists()


def test_without_a_sound_step_all_are_listed_and_left_alone(workdir):
    for step in (2, 4):
        lose(workdir / "checkpoints" / str(step) / "state")
    with TrainCheckpoints(workdir) as saved, pytest.raises(OSError, match="no sound step, .* 4: .*; 2: ") as caught:
        saved.restore_newest(ABSTRACT)
    assert "\n" not in str(caught.value)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}


def test_a_state_of_another_network_is_not_damage(workdir):
    other = ABSTRACT | {"generator": {"w": ABSTRACT["generator"]["w"]}}
    with TrainCheckpoints(workdir) as saved, pytest.raises(Mismatch, match="step 4 .* generator/b is not part"):
        saved.restore_newest(other)
    assert not (workdir / "damaged").exists()


def test_a_step_that_may_not_be_gone_on_from_is_not_damage(workdir):
    def refuse(step, metadata):
        raise Mismatch(f"not {step}, which saw {metadata['seen']}")

    with TrainCheckpoints(workdir) as saved, pytest.raises(Mismatch, match="not 4, which saw 4"):
        saved.restore_newest(ABSTRACT, refuse)


def test_a_notice_to_stop_while_a_step_is_read_is_not_damage(workdir):
    def stop(step, metadata):
        raise Preempted(None)

    with TrainCheckpoints(workdir) as saved, pytest.raises(Preempted):
        saved.restore_newest(ABSTRACT, stop)
    assert not (workdir / "damaged").exists()


def test_a_model_is_loaded_from_the_newest_sound_step_and_nothing_is_moved(tmp_path, tiny_model, caplog):
    model = tiny_model(("real",))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    with TrainCheckpoints(tmp_path) as saved:
        saved.save(1, {"generator": params}, model.config, DOMAINS)
        saved.save(2, {"generator": jax.tree.map(lambda leaf: leaf + 1, params)}, model.config, DOMAINS)
    lose(tmp_path / "checkpoints" / "2" / "state" / "ocdbt.process_0")
    loaded = nnx.to_pure_dict(nnx.state(load_model(tmp_path), nnx.Param))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    assert "step 2 is damaged and skipped: " in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


@pytest.fixture
def small_files():
    """No file may grow beyond 20 kB, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("how", ["wait", "check_saved", "save"])
def test_a_save_that_fails_is_one_line_that_names_what_remains(workdir, small_files, how):
    state = state_of(6) | {"generator": {"w": jax.random.normal(jax.random.key(0), (20_000,))}}
    with TrainCheckpoints(workdir) as saved:
        saved.check_saved()
        small_files()
        with pytest.raises(OSError, match="step 6 could not be written to .*, the newest step there is 4; ") as caught:
            saved.save(6, state, CONFIG, DOMAINS)
            if how == "check_saved":
                while saved._saving:
                    saved.check_saved()
            getattr(saved, how)(*((8, state, CONFIG, DOMAINS) if how == "save" else ()))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}  # Nothing half-written is left.
    with TrainCheckpoints(workdir) as saved:
        assert saved.restore_newest(ABSTRACT).step == 4


def test_a_disk_without_room_is_told_before_training(workdir, caplog, monkeypatch):
    one = 4 * (4096 + 3 + 1)
    with TrainCheckpoints(workdir, keep_newest=3) as saved:
        for free, says in ((one - 1, "error"), (2 * one - 1, "warning"), (2 * one, "nothing")):  # Two are there.
            monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: shutil._ntuple_diskusage(0, 0, free))
            caplog.clear()
            if says == "error":
                with pytest.raises(OSError, match="GB free, a checkpoint takes .*: free space there"):
                    saved.check_space(state_of(0))
            else:
                saved.check_space(state_of(0))
                assert ("keep_newest = 3 of them and one more" in caplog.text) == (says == "warning")


OF_TWO_PROCESSES = """
import sys
import jax
import jax.numpy as jnp
from toontalker_jax.checkpoints import TrainCheckpoints
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.training.processes import free_port

jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[3]))
sharding = jax.sharding.NamedSharding(jax.make_mesh((2,), ("x",)), jax.sharding.PartitionSpec("x"))
zeros = {"generator": {"w": jax.make_array_from_callback((8,), sharding, lambda index: jnp.zeros(8)[index])}}
abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), zeros)

def only_one_reads_step_4(step, metadata):
    if step == 4 and jax.process_index() == 1:
        raise OSError("not here")

with TrainCheckpoints(sys.argv[1]) as saved:
    for step in (2, 4):
        saved.save(step, jax.tree.map(lambda leaf: leaf + step, zeros), ModelConfig(), ("real",))
    restored = saved.restore_newest(abstract, only_one_reads_step_4)
    assert restored.step == 2, restored.step
    saved.save(4, restored.state, ModelConfig(), ("real",))
    restored = saved.restore_newest(abstract)
    shard = restored.state["generator"]["w"].addressable_data(0)
    assert restored.step == 4 and (shard == 2).all(), shard

    reads = []
    describe = saved.describe_step

    def only_one_reads_it_once(step):
        reads.append(step)
        if jax.process_index() == 1 and len(reads) > 1:
            raise OSError("gone")
        return describe(step)

    saved.describe_step = only_one_reads_it_once
    assert saved.restore_newest(abstract).step == 4
"""


def run_two(code, workdir):
    port = free_port()
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": "."}
    commands = [[sys.executable, "-c", code, str(workdir), str(port), str(process)] for process in (0, 1)]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    try:
        for process in running:
            errors = process.communicate(timeout=120)[1]  # Without agreement each would wait for the other.
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()


ONE_CANNOT_WRITE = """
import resource, signal, sys
import jax
import jax.numpy as jnp
from toontalker_jax.checkpoints import TrainCheckpoints, training
from toontalker_jax.models.config import ModelConfig

training._WRITE_S = 3
jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[3]))
sharding = jax.sharding.NamedSharding(jax.make_mesh((2,), ("x",)), jax.sharding.PartitionSpec("x"))
many = jax.random.normal(jax.random.key(0), (1 << 16,))
state = {"generator": {"w": jax.make_array_from_callback(many.shape, sharding, lambda index: many[index])}}
saved = TrainCheckpoints(sys.argv[1])
saved.save(2, state, ModelConfig(), ("real",))
saved.wait()
if jax.process_index() == 1:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
saved.save(4, state, ModelConfig(), ("real",))
try:
    saved.wait()
except OSError as error:
    assert "step 4 could not be written to" in str(error) and "the newest step there is 2" in str(error), error
else:
    raise AssertionError("nobody saw it")
"""


def test_all_processes_are_told_when_one_cannot_write(tmp_path):
    run_two(ONE_CANNOT_WRITE, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


def test_processes_agree_on_the_step_when_one_of_them_cannot_read_the_newest(tmp_path):
    run_two(OF_TWO_PROCESSES, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]
    assert [path.name for path in (tmp_path / "damaged").glob("[0-9]*")] == ["4"]
