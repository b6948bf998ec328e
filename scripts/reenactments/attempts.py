"""What can fail of a reenactment, told in one line; what fails of several is told, and the others go on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

FAILURES = (ValueError, OSError, ImportError, jax.errors.JaxRuntimeError)  # ImportError: a bucket without its extra


def told(error: Exception) -> str:
    """What went wrong, in one line; JAX's own errors go on for a page."""
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return str(error)
    line = (str(error).splitlines() or ["no message"])[0].rstrip(".")
    return f"{line}: lower --batch_size, or --dtype=bfloat16" if "RESOURCE_EXHAUSTED" in line else line


class Attempts:
    """`attempt(what, function, arguments…)` returns what the function does, or None if it failed.

    Attributes:
      failures: a line for each that failed.

    Raises:
      one of FAILURES: it failed and there are not several.
    """

    def __init__(self, several: bool):
        self._several = several
        self.failures: list[str] = []

    def __call__(self, what: Path, function: Callable, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except FAILURES as error:
            if not self._several:
                raise
            line = told(error)
            self.failures.append(line if str(what) in line else f"{what}: {line}")
            print(f"error: {self.failures[-1]}", file=sys.stderr)
            return None
