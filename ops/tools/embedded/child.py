"""Long commands that are stopped in order: they and their children end before the caller does."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from ops.tools import signals
from ops.tools.embedded.console import Failure, until
from ops.tools.embedded.paths import ROOT


def finish(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a command to its end, and return its exit status. A signal to stop ends all processes of the command first.

    `subprocess.run` would kill the command a quarter of a second after the signal: tests would leave their servers
    and files behind. The command has a process group of its own, so that it gets the signal once, whether the
    terminal or `kill` sent it.
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
    """Tell whether a process of the group is left: the workers of pytest-xdist outlive the first process."""
    with suppress(OSError):
        os.killpg(group, 0)
        return True
    return False
