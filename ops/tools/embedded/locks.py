"""File locks (flock): they show that a thing is in use, and that a process still lives.

The kernel drops a lock when its last holder ends, however it ends, so a lock is never stale. A child that inherits
the open file holds the lock too.
"""

import fcntl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops.tools.embedded.console import Failure

SILENT_SECONDS = 1.0  # a longer wait is explained on stderr


def hold(path: Path, *, shared: bool = False) -> IO[bytes] | None:
    """Return the open file that holds the lock until it is closed, or None if another process has the lock."""
    file = path.open("ab")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def held(path: Path) -> bool:
    """Tell whether any process holds the lock."""
    if not path.exists():
        return False
    file = hold(path)
    if file:
        file.close()
    return not file


@contextmanager
def turn(path: Path, work: str) -> Iterator[None]:
    """Hold the lock for the block, after waiting until no other command has it.

    A wait of more than a second is explained on stderr: "waiting for another command, which" and `work`.
    """
    explain = threading.Timer(
        SILENT_SECONDS, print, [f"waiting for another command, which {work}"], {"file": sys.stderr}
    )
    explain.daemon = True
    with path.open("ab") as file:
        explain.start()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            explain.cancel()
        yield


@contextmanager
def only(path: Path, refusal: str) -> Iterator[None]:
    """Hold the lock for the block. Raises Failure, with `refusal` as its text, if another process has the lock."""
    file = hold(path)
    if not file:
        raise Failure(refusal)
    with file:
        yield
