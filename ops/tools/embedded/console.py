"""The output of the commands: a line for each step with its duration, and one line for a failure."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ops.tools.signals import STOPS


class Failure(Exception):
    """An error that the user can mend. Its text is the one line that the user sees."""


@contextmanager
def step(label: str) -> Iterator[None]:
    """Print `label`, and at the end of the block its duration, or "stopped" if it raised."""
    start = time.monotonic()
    print(f"{label} ... ", end="", flush=True)
    try:
        yield
    except BaseException:
        print("stopped", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until `condition` holds. Raises Failure, which names the thing awaited, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def run(command: Callable[[], int]) -> None:
    """Run `command`, and exit with the status that it returns. A Failure or OSError is one line, not a traceback."""
    for number in STOPS:
        signal.signal(number, _interrupt)
    try:
        sys.exit(command())
    except (Failure, OSError) as error:  # OSError: a full disk, a directory that is not writable
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports SIGINT


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt at the first signal, and ignore all later ones while the command stops.

    The terminal, make and a service manager may each send signals, and more than one.
    """
    for number in STOPS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt
