"""Which records of other packages' logs are shown."""

import logging
import sys

import pytest

from toontalker_jax.training import failed_writes

ORBAX = "/packages/orbax/checkpoint/manager.py"


@pytest.mark.parametrize(
    ("name", "path", "level", "alone", "among_several"),
    [
        ("absl", "/toontalker_jax/training/loop.py", logging.WARNING, True, True),
        ("asyncio", "/python/asyncio/base_events.py", logging.ERROR, False, False),
        ("absl", ORBAX, logging.WARNING, False, False),
        ("absl", ORBAX, logging.ERROR, False, True),
    ],
)
def test_orbax_tells_of_errors_among_several_processes_alone(monkeypatch, name, path, level, alone, among_several):
    for several, shown in ((False, alone), (True, among_several)):
        monkeypatch.setattr(failed_writes.jax.distributed, "is_initialized", lambda several=several: several)
        try:
            raise OSError("disk full")
        except OSError:
            record = logging.LogRecord(name, level, path, 1, "failed", (), sys.exc_info())
        assert failed_writes._tells(record) == shown
        assert path != ORBAX or logging.Formatter().format(record) == "failed"  # without its traceback
