"""How a script ends that cannot go on."""

import contextlib
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def in_one_line(*errors: type[Exception], ctrl_c: str) -> Iterator[None]:
    """Ends the process with a line in place of a traceback: status 1 after `errors`, 130 after Ctrl-C."""
    try:
        yield
    except errors as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print(f"stopped by Ctrl-C: {ctrl_c}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
