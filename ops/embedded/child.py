"""Long commands, stopped in order: they take down what they have started before anything else goes."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from ops.embedded.console import Failure, until
from ops.embedded.paths import ROOT


def finish(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a command to its end, and return its status. When told to stop, stop its processes first.

    `subprocess.run` would kill it a quarter of a second later: tests would leave their servers and files behind.
    A process group of its own lets the signal come once, whether the terminal sent it or `kill`.
    """
    with subprocess.Popen(command, cwd=ROOT, env=variables, process_group=0) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
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
