"""SIGTERM before and after the first step. tests/scripts has whole runs."""

import signal

import pytest

from toontalker_jax.training.preemption import Notice, Preempted


@pytest.fixture
def notice():
    before = signal.getsignal(signal.SIGTERM)
    yield Notice()
    signal.signal(signal.SIGTERM, before)


def test_before_the_first_step_it_ends_the_run_at_once(notice):
    with pytest.raises(Preempted, match="before its first step was done: run the same command again"):
        signal.raise_signal(signal.SIGTERM)


def test_later_it_waits_for_the_end_of_the_step(notice):
    assert not notice(1)
    signal.raise_signal(signal.SIGTERM)
    assert notice(2)
