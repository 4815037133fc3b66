"""Long commands, stopped in order: they take down what they have started before anything else goes."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from ops.embedded.paths import ROOT

PATIENCE = 60  # seconds for a command to stop in


def finish(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a command to its end, and return its status. When told to stop, stop its processes first.

    `subprocess.run` would kill it a quarter of a second later: tests would leave their servers and files behind.
    A process group of its own lets the signal come once, whether the terminal sent it or `kill`.
    """
    with subprocess.Popen(command, cwd=ROOT, env=variables, process_group=0) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(PATIENCE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
