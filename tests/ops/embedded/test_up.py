"""`make up` in a checkout that has a virtual environment and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ops.embedded import locks

from .conftest import Checkout


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    (checkout.root / ".venv").symlink_to(sys.prefix)
    return checkout


def serving(process: "subprocess.Popen[str]") -> bool:
    """Read until it says that it serves."""
    assert process.stdout
    return any("Ctrl-C stops everything" in line for line in process.stdout)


def alive(checkout: Checkout) -> list[str]:
    """Name the processes that are left."""
    local = checkout.root / ".local"
    every = (local / "gunicorn.lock", *(local / "servers").glob("*.lock"))
    return [path.stem for path in every if locks.held(path)]


def test_serves_then_stops_everything(ready: Checkout, free_port: int) -> None:
    port = str(free_port)
    with ready.start("up", PORT=port, METRICS_PORT="0", WEB_CONCURRENCY="1") as process:
        assert serving(process)
        answer = httpx.get(f"http://127.0.0.1:{port}/api/products?limit=1")
        assert answer.status_code == 200
        second = ready.run("up", PORT=port)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert second == (1, "error: `make up` of this checkout is running already\n")
    assert process.returncode == 0
    assert alive(ready) == []
    assert (ready.root / ".local/secret_key").stat().st_mode & 0o077 == 0


def test_replaces_one_whose_supervisor_was_killed(ready: Checkout, free_port: int) -> None:
    variables = {"PORT": str(free_port), "METRICS_PORT": "0", "WEB_CONCURRENCY": "1"}
    with ready.start("up", **variables) as first:
        assert serving(first)
        first.kill()
        first.wait()
        assert set(alive(ready)) >= {"gunicorn", "postgres", "valkey"}
        with ready.start("up", **variables) as second:
            assert serving(second)
            os.killpg(second.pid, signal.SIGINT)
            second.communicate(timeout=30)
    assert alive(ready) == []


def test_a_port_in_use_is_one_line_before_any_work(checkout: Checkout, used_port: int) -> None:
    status, said = checkout.run("up", PORT=str(used_port))
    assert status == 1
    assert said == f"error: PORT {used_port} is in use; another one: `PORT=8001 make up`\n"
    assert not (checkout.root / ".venv").exists()


def test_a_directory_that_cannot_be_written_is_one_line(checkout: Checkout) -> None:
    Path(checkout.root / ".local").write_text("in the way")
    status, said = checkout.run("up")
    assert status == 1
    assert said == f"error: [Errno 17] File exists: '{checkout.root}/.local'\n"
