"""Start-up and shutdown of a worker, asked of gunicorn itself."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import gc
from contextlib import asynccontextmanager
from ops.asgi.garbage import settled_heap
from ops.asgi.lifespan import Lifespan

def resource(name, opens=True):
    @asynccontextmanager
    async def hold():
        if not opens:
            raise ConnectionError("nobody\\nthere")
        print(f"open {name}, frozen: {gc.get_freeze_count() > 1000}, youngest: {gc.get_threshold()[0]}", flush=True)
        try:
            yield
        finally:
            print(f"close {name}", flush=True)
    hold.__name__ = name
    return hold

good = Lifespan(None, resource("first"), settled_heap, resource("second"))
bad = Lifespan(None, resource("first"), resource("second", opens=False))
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def gunicorn(program: Path, application: str) -> "subprocess.Popen[str]":
    """Start one worker. It imports the application itself, so that only the lifespan freezes anything."""
    options = [
        "--bind=127.0.0.1:0",
        "--workers=1",
        "--worker-class=ops.asgi.worker.Worker",
        "--config=/dev/null",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, f"--chdir={program}", f"program:{application}"],
        cwd=program,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_resources_are_held_while_the_worker_serves(program: Path) -> None:
    with gunicorn(program, "good") as server:
        assert server.stdout
        opened = [server.stdout.readline(), server.stdout.readline()]
        server.send_signal(signal.SIGTERM)
        closed, _ = server.communicate(timeout=20)
    assert opened == [
        f"open first, frozen: False, youngest: {gc.get_threshold()[0]}\n",  # this Python's default
        "open second, frozen: True, youngest: 2000\n",
    ]
    assert closed.splitlines() == ["close second", "close first"]
    assert server.returncode == 0


def test_failed_start_stops_the_server_with_one_line(program: Path) -> None:
    with gunicorn(program, "bad") as server:
        printed, logged = server.communicate(timeout=20)
    assert server.returncode == 3
    assert printed.splitlines()[-1] == "close first"
    assert "The startup of second failed: ConnectionError: nobody there\n" in logged
    assert "Traceback" not in logged
