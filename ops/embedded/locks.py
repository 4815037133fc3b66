"""File locks (flock): who uses a thing, and whether a process still lives.

The kernel drops a lock when its last holder ends, however it ends, so nothing here can be left behind stale.
A child that inherits the open file holds the lock too.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ops.embedded.console import Failure


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
def turn(path: Path) -> Iterator[None]:
    """Wait for one's turn."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def only(path: Path, refusal: str) -> Iterator[None]:
    """Fail with `refusal` if another has the lock."""
    file = hold(path)
    if not file:
        raise Failure(refusal)
    with file:
        yield
