"""File locks (flock): they show that a thing is in use, and that a process still lives.

The kernel drops a lock when its last holder ends, however it ends, so nothing here can be left behind stale.
A child that inherits the open file holds the lock too.
"""

import fcntl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops.tools.embedded.console import Failure

SILENT_SECONDS = 1.0  # a longer wait is explained


def hold(path: Path, *, shared: bool = False) -> IO[bytes] | None:
    """Take the lock at once, or return None. It is held until the file is closed."""
    file = path.open("ab")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def held(path: Path) -> bool:
    """Tell whether anyone holds the lock."""
    if not path.exists():
        return False
    file = hold(path)
    if file:
        file.close()
    return not file


@contextmanager
def turn(path: Path, work: str) -> Iterator[None]:
    """Wait until no other command has the lock, as one does while it does `work`: stderr says so after a second."""
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
    """Fail with `refusal` if another has the lock."""
    file = hold(path)
    if not file:
        raise Failure(refusal)
    with file:
        yield
