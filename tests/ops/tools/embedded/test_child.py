"""A long command that is told to stop takes down what it has started."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ops.tools.embedded.paths import ROOT

SUPERVISOR = """
import os, sys
from ops.tools.embedded import child, console
console.run(lambda: child.finish([sys.executable, "-c", sys.argv[1], sys.argv[2]], dict(os.environ)))
"""
# It ends before a process of its own does, as pytest-xdist may.
SLOW = """
import os, sys, time
from pathlib import Path
made = Path(sys.argv[1])
if os.fork():
    time.sleep(60)
made.touch()
print("started", flush=True)
try:
    time.sleep(60)
finally:
    time.sleep(1)
    made.unlink()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    made = tmp_path / "made"
    command = [sys.executable, "-c", SUPERVISOR, SLOW, str(made)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as supervisor:
        assert supervisor.stdout
        assert supervisor.stdout.readline() == b"started\n"
        assert made.exists()
        supervisor.send_signal(number)
        supervisor.communicate(timeout=30)
    assert not made.exists()
    assert supervisor.returncode == 130
