"""Long commands, stopped in order: their own children end first."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from ops.tools import signals
from ops.tools.embedded.console import Failure, until
from ops.tools.embedded.paths import ROOT


def finish(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a command to its end, and return its status. On a signal to stop, stop its processes first.

    `subprocess.run` would kill it a quarter of a second later: tests would leave their servers and files behind.
    A process group of its own lets the signal come once, whether the terminal sent it or `kill`.
    """
    process = None
    try:
        with signals.deferred():
            process = subprocess.Popen(command, cwd=ROOT, env=variables, process_group=0)
        return process.wait()
    except KeyboardInterrupt:
        if process:
            with suppress(Failure, ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
                until(lambda: process.poll() is not None and not _left(process.pid), "the command to stop")
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        raise


def _left(group: int) -> bool:
    """Tell whether a process of the group is left: those of pytest-xdist outlive the first."""
    with suppress(OSError):
        os.killpg(group, 0)
        return True
    return False
