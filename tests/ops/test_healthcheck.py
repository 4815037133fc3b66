"""The container's health check, asked of the service as a process and of servers that are no service."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ops import healthcheck
from ops.tools.embedded.paths import ROOT
from tests.service import serve

CHECK = [sys.executable, "-S", "-m", "ops.healthcheck"]  # as the Dockerfile has it
DEADLINE = 10  # seconds


def check(port: int, hosts: str) -> "subprocess.CompletedProcess[str]":
    variables = os.environ | {"PORT": str(port), "ALLOWED_HOSTS": hosts}
    return subprocess.run(
        CHECK, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


@pytest.mark.parametrize("hosts", ["api.example.com,localhost", ".example.com", "*", "[::1]"])
def test_a_service_is_healthy_whatever_its_hosts_are(hosts: str, tmp_path: Path) -> None:
    with serve({"ALLOWED_HOSTS": hosts}, tmp_path) as service:
        service.client.get("/livez")  # it may still be starting
        checked = check(service.address[1], hosts)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.endswith("HTTP/1.1 200 OK\n")


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        checked = check(closed.getsockname()[1], "*")
    assert checked.returncode == 1
    assert "ConnectionRefusedError" in checked.stdout


def test_a_server_that_never_answers() -> None:
    """The kernel accepts for it, as for workers that all hang."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        checked = check(frozen.getsockname()[1], "*")
    assert checked.returncode == 1
    assert "TimeoutError" in checked.stdout


def test_a_server_that_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))
        with ThreadPoolExecutor(1) as other:
            status = other.submit(healthcheck.main)
            server.accept()[0].close()
            assert status.result(DEADLINE) == 1
