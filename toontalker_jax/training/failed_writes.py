"""What other packages print when a run's files cannot be written."""

import logging as logs
import sys
import threading

import jax
from absl import logging


def quiet() -> None:
    """Keeps pages of tracebacks out of the log when nothing can be written: one error is raised, too."""
    # Orbax: its own log, asyncio tasks that nobody awaits, and an event loop that its callbacks find closed.
    logging.get_absl_handler().addFilter(_tells)
    usual, of_threads = sys.unraisablehook, threading.excepthook
    sys.unraisablehook = lambda told: None if str(told.exc_value) == "Event loop is closed" else usual(told)
    # TensorBoard's writer is a thread; the reporter sees that it has ended.
    threading.excepthook = lambda told: None if isinstance(told.exc_value, OSError) else of_threads(told)


def _tells(record: logs.LogRecord) -> bool:
    """Whether a record is shown."""
    if record.name == "asyncio" or "orbax" not in record.pathname:
        return record.name != "asyncio"
    # Of several processes the one that fails knows at once; that all know takes Orbax minutes. One line, no traceback.
    record.exc_info = record.exc_text = None
    return record.levelno >= logs.ERROR and jax.distributed.is_initialized()
