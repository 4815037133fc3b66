"""The output of the commands: a line for each step with its duration, and one line for a failure."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ops.tools.signals import STOPS


class Failure(Exception):
    """Something that the user can mend. Its text is the one line that they see."""


@contextmanager
def step(label: str) -> Iterator[None]:
    """Print `label`, and its duration when it is done."""
    start = time.monotonic()
    print(f"{label} ... ", end="", flush=True)
    try:
        yield
    except BaseException:
        print("stopped", flush=True)
        raise
    print(f"{time.monotonic() - start:.1f} s", flush=True)


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until `condition` holds; raises Failure after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def run(command: Callable[[], int]) -> None:
    """Exit with the status that `command` returns. An error that the user can mend is one line, not a traceback."""
    for number in STOPS:
        signal.signal(number, _interrupt)
    try:
        sys.exit(command())
    except (Failure, OSError) as error:  # OSError: the disk is full, a directory is not writable
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports SIGINT


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stop in order, once: the terminal, make and a service manager may all say it, and more than once."""
    for number in STOPS:
        signal.signal(number, lambda *_: None)
    raise KeyboardInterrupt
