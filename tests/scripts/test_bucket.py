"""Training with its workdir in a bucket, of a server that stands in for Google's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import storage_server
from tests.scripts.trainings import params
from toontalker_jax.checkpoints import TrainCheckpoints, absolute
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.training.reporting import Reporter


@pytest.fixture(scope="module")
def storage():
    """One for all tests: the clients keep its address."""
    with storage_server.serving() as storage, pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in storage.environment.items():
            monkeypatch.setenv(name, value)
        yield storage


def test_a_run_that_is_killed_loses_nothing(start, train, stage1, storage):
    training = start("gs://bucket/run", steps=4, checkpoint_every=1)
    told = ""
    for character in iter(functools.partial(training.stderr.read, 1), ""):
        told += character
        if " 3/4 [" in told:  # the bar of steps
            training.kill()
            break
    told += training.communicate()[1]
    assert training.returncode == -9, told
    assert not any(name.startswith("run/checkpoints/4") for _, name in storage.objects)
    done = train("gs://bucket/run", steps=4, checkpoint_every=1)
    assert done.returncode == 0, done.stderr
    assert " 0/4 [" not in done.stderr  # it goes on
    run = absolute("gs://bucket/run")
    assert (run / "metrics.jsonl").read_text() == (stage1 / "metrics.jsonl").read_text()
    jax.tree.map(np.testing.assert_array_equal, params(run), params(stage1))
    assert any(name.startswith("run/tensorboard/events") for _, name in storage.objects)


def test_a_save_that_fails_names_the_step_that_remains(storage):
    state, about = {"generator": {"motion_base": jnp.ones((2, 3))}}, (ModelConfig(), ("real",))
    match = "^step 4 could not be written to gs://.*, the newest step there is 2; .*the quota is used up"
    try:
        with pytest.raises(OSError, match=match) as caught, TrainCheckpoints("gs://bucket/full") as saved:
            saved.save(2, state, *about)
            saved.wait()
            storage.full = "full/checkpoints"
            saved.save(4, state, *about)
            saved.wait()
    finally:
        storage.full = None
    assert "\n" not in str(caught.value)
    with TrainCheckpoints("gs://bucket/full") as saved:
        assert saved.agreed_steps() == [2]


def test_event_files_stay_small(storage):
    """A bucket's objects cannot be appended to: each flush sends all of the file again."""
    random = np.random.default_rng(0)
    reporter = Reporter("gs://bucket/events", resume_step=0)
    for step in range(1, 26):
        reporter.scalars(step, {"loss": 1.0}, {})
        reporter.pictures(step, {"grid": random.integers(0, 256, (16, 16, 3), dtype=np.uint8)})
    reporter.close()
    files = [data for (_, name), (_, data) in storage.objects.items() if name.startswith("events/tensorboard/")]
    assert [data.count(b"PNG") for data in files] == [10, 10, 5]
    assert sum(data.count(b"loss") for data in files) == 25
