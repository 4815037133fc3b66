"""Where to put small files that are written all the time: in memory, if that can be done."""

import os
import tempfile

TMPFS = "/dev/shm"  # noqa: S108  files there have random names and belong to this user


def directory(room: int = 0) -> str | None:
    """Return the tmpfs, if it takes a file and has `room` bytes, else None: tempfile then chooses.

    macOS has no such file system; in a container it may be read-only, or very small.
    """
    try:
        tempfile.TemporaryFile(dir=TMPFS).close()
        state = os.statvfs(TMPFS)
    except OSError:
        return None
    return TMPFS if state.f_bavail * state.f_frsize >= room else None
