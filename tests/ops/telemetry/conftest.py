"""A service whose metrics are served, and what can be asked about it from outside."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from tests.service import PATIENCE, Service, serve

SAMPLE = re.compile(r"(?m)^(\w+)(\{[^\n]*\})? ([^ \n]+)$")


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def processes() -> dict[int, tuple[int, str]]:
    """The parent and the command line of each process that has not ended."""
    ps = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    printed = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in printed.splitlines()]
    return {int(row[0]): (int(row[1]), row[3]) for row in rows if not row[2].startswith("Z")}


def children(pid: int) -> dict[int, str]:
    """The command lines of a process's children that have not ended."""
    try:  # Linux tells them without a process of ps's, for each of thousands of questions
        listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return {child: command for child, (parent, command) in processes().items() if parent == pid}
    found = {}
    for child in listed.split():
        with suppress(OSError):  # it ends meanwhile
            if command := Path(f"/proc/{child}/cmdline").read_text():  # that of a zombie is empty
                found[int(child)] = command.rstrip("\0").replace("\0", " ")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Instrumented:
    service: Service
    port: int
    directory: Path

    @property
    def client(self) -> httpx.Client:
        return self.service.client

    @property
    def pid(self) -> int:
        return self.service.process.pid

    @property
    def workers(self) -> list[int]:
        return [pid for pid in children(self.pid) if pid not in self._shells]

    @property
    def exporters(self) -> list[int]:
        return [pid for shell in self._shells for pid in children(shell)]

    @property
    def _shells(self) -> list[int]:
        """The shell that starts the exporter again."""
        return [pid for pid, command in children(self.pid).items() if "exporter" in command]

    def scrape(self) -> dict[str, float]:
        """The samples by name and labels, in the order in which they are exposed."""
        text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", timeout=PATIENCE).text
        return {name + (labels or ""): float(value) for name, labels, value in SAMPLE.findall(text)}

    def scrapes(self, sample: str, value: float) -> bool:
        """Whether there is such a sample; the metrics' port may not answer yet."""
        try:
            return self.scrape().get(sample) == value
        except httpx.TransportError:
            return False


class Start(Protocol):
    def __call__(self, workers: int = 1, *, application: str = ..., **environment: str) -> Instrumented: ...


@contextmanager
def instrumented(
    directory: Path, environment: Mapping[str, str], workers: int, application: str
) -> Iterator[Instrumented]:
    port, files = free_port(), directory / "metrics"
    own = {"METRICS_PORT": str(port), "PROMETHEUS_MULTIPROC_DIR": str(files)}
    with serve({**own, **environment}, directory, workers=workers, application=application) as service:
        running = Instrumented(service, port, files)
        eventually(lambda: len(running.workers) == workers)
        yield running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one service, which ends with the test."""
    contexts = []

    def begin(
        workers: int = 1, *, application: str = "config.asgi:application", **environment: str
    ) -> Instrumented:
        context = instrumented(tmp_path, environment, workers, application)
        contexts.append(context)
        return context.__enter__()

    yield begin
    for context in contexts:
        context.__exit__(None, None, None)
