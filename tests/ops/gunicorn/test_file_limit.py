"""More clients than files: it is said once, costs nothing, and those that are connected are served."""

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ops.machine import files
from tests.ops.telemetry.conftest import children
from tests.service import PATIENCE, Service, serve

SOFT, HARD = 64, 240
SAID, OVER = b"No more connections are accepted", b"Connections are accepted again"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc and prlimit(2) are Linux's")


def busy(pid: int) -> float:
    """The seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def crowd(service: Service, number: int) -> Iterator[None]:
    """Clients that connect and say nothing."""
    with ExitStack() as clients:
        for _ in range(number):
            clients.enter_context(socket.create_connection(service.address, PATIENCE))
        yield


@pytest.mark.chaos("more sockets than the file limit")
@pytest.mark.parametrize("lowered", [None, 100], ids=["some are left", "none is left"])
def test_more_clients_than_files(tmp_path: Path, lowered: int | None) -> None:
    """One line says it, clients that are connected are served, and the loop does not turn in circles.

    The service keeps some files in reserve. Where something else has taken those, accept itself fails.
    """
    with serve({}, tmp_path, files=(SOFT, HARD)) as running:
        running.client.get("/livez")
        (worker,) = children(running.process.pid)
        assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (HARD, HARD)
        if lowered:
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (lowered, HARD))
        most = lowered or HARD - files.RESERVE
        with crowd(running, most + 40):
            running.wait_for(SAID)
            before = busy(worker)
            until = time.monotonic() + 3
            while time.monotonic() < until:
                assert running.client.get("/healthz").json()["postgres"]["status"] == "ok"
                time.sleep(0.1)
            assert busy(worker) - before < 1  # a loop that turned in circles would have taken 3
            assert len([*Path(f"/proc/{worker}/fd").iterdir()]) <= most + 20
        with socket.create_connection(running.address, PATIENCE) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        running.wait_for(OVER)
        log = running.log.read_bytes()
        assert (log.count(SAID), log.count(OVER), log.count(b"Traceback")) == (1, 1, 0)


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((1024, 524288), (65536, 524288)),
        ((1024, 4096), (4096, 4096)),
        ((100_000, 524288), (100_000, 524288)),
        ((1024, resource.RLIM_INFINITY), (65536, resource.RLIM_INFINITY)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_the_soft_limit_is_raised(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], wanted: tuple[int, int] | None
) -> None:
    """As far as makes sense: some hard limits are a billion."""
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, now: raised.append(now))
    files.raise_limit()
    assert raised == ([wanted] if wanted and wanted != limits else [])


def test_another_limit_of_the_kernel_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1_000_000))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    files.raise_limit()
