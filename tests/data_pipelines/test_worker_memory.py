"""Arrays of workers: what is held stays, what is not is used again. Sender and receiver are this process here."""

import itertools
import os
import pickle
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from data_pipelines import worker_memory
from data_pipelines.worker_memory import SHARES_MEMORY, Receiving, Sending, SentArray, WorkerMemory
from tests.data_pipelines.numbered_clips import assert_equal

pytestmark = pytest.mark.skipif(not SHARES_MEMORY, reason="needs memory without a name, as on Linux")


def load(step, empty):
    """Arrays that say which step they are of, in a batch of two directions; and a message."""
    batch = {kind: {"driving": empty((3, 4, 4, 3), np.uint8), "source": empty((2, 5), np.float32)} for kind in "ab"}
    for number, kind in enumerate(batch):
        for images in batch[kind].values():
            images[:] = 2 * step + number
    return batch, [f"step {step}"]


class Elements:
    """What Grain hands on: a batch decoded, in vain or not, and sent through a pipe."""

    def __init__(self):
        self._sending = Sending(load)
        self.step = -1

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        return pickle.loads(pickle.dumps(self._sending(self.step)))


def blocks():
    """How many blocks this process maps: each twice, as sender and receiver."""
    return Path("/proc/self/maps").read_text().count("/memfd:decoded")


def test_batches_come_as_they_were_made():
    received = Receiving(Elements())
    for step in range(3):
        batch, messages = next(received)
        assert_equal(batch, load(step, np.empty)[0])
        assert messages == [f"step {step}"]
        assert batch["a"]["source"].dtype == np.float32 and batch["a"]["driving"].flags.writeable


def test_memory_is_used_again_and_ends_with_its_last_user():
    elements = Elements()
    received = Receiving(elements)
    for _ in range(30):
        batch, _ = next(received)
    # While a batch is made, the one before it is still held: two of four arrays.
    assert blocks() == 2 * 2 * 4
    del elements, received
    assert blocks() == 4
    del batch
    assert blocks() == 0


@pytest.mark.parametrize(
    "hold",
    [lambda images: images, lambda images: images[1:][:, 2], lambda images: images.T[0], memoryview, jax.device_put],
    ids=["array", "view of a view", "transposed", "memoryview", "JAX"],
)
def test_what_is_held_stays(hold):
    received = Receiving(Elements())
    held = [hold(next(received)[0]["a"]["driving"]) for _ in range(4)]
    for _ in range(30):
        next(received)
    for step, images in enumerate(held):
        assert set(np.asarray(images).ravel().tolist()) == {2 * step}


def refuse(*_):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("asked_how_it_ended", [True, False])
def test_batches_of_a_worker_that_has_ended_are_not_skipped(monkeypatch, asked_how_it_ended):
    def elements():
        yield {"source": SentArray(ended.pid, 3, 17, (16,), "|u1")}, []
        yield Sending(load)(1)
        raise RuntimeError("Grain's account of how it ended")

    with subprocess.Popen(["true"]) as ended:
        if asked_how_it_ended:
            ended.wait()
        else:  # Users other than root hear this of a process that has ended, as long as nobody asked how.
            monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(RuntimeError, match="Grain's account"):
            next(Receiving(elements()))


def test_memory_of_a_worker_that_lives_and_cannot_be_opened_is_told(monkeypatch):
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(worker_memory, "_DYING_S", 0.02)
    endless = itertools.repeat(({"source": SentArray(os.getpid(), 3, 17, (16,), "|u1")}, []))
    with pytest.raises(OSError, match=r"cannot be opened \(Permission denied\): use fewer data.workers, or none"):
        next(Receiving(endless))


def test_copies_in_a_forked_process_give_nothing_back(monkeypatch):
    received = Receiving(Elements())
    here, batch = os.getpid(), next(received)[0]
    mapped = blocks()
    monkeypatch.setattr(os, "getpid", lambda: here + 1)  # as in a copy of this process
    del batch
    monkeypatch.undo()
    next(received)
    assert blocks() == mapped + 2 * 4


def test_memory_of_another_size_is_not_taken():
    memory = WorkerMemory()
    first, second = memory.empty((4, 3), np.uint8), memory.empty((3, 3), np.uint8)
    first[:], second[:] = 1, 2
    assert first.tolist() == [[1] * 3] * 4 and second.tolist() == [[2] * 3] * 3


def test_memory_is_not_sent_along_with_what_uses_it():
    memory = WorkerMemory()
    array = memory.empty((4,), np.uint8)
    with pytest.raises(StopIteration):
        pickle.loads(pickle.dumps(memory)).sent(array)
