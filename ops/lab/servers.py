"""Contenders as processes: one at a time, on loopback, stopped whatever happens."""

import http.client
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ops.lab.contender import Contender
from ops.lab.failure import LabError

ROOT = Path(__file__).parents[2]
PORTS = range(55200, 55300)
START_SECONDS = 30
STOP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Server:
    """A contender that answers."""

    port: int
    session: int  # the id of the session that all its processes are in

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def serve(contender: Contender, workers: int, directory: Path) -> Iterator[Server]:
    """Run it in `directory`, where its output goes; raises LabError, with its end, if it does not answer in time."""
    port = _free_port()
    names = {"python": sys.executable, "port": port, "workers": workers, "start": secrets.token_hex(8)}
    log = directory / f"{contender.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(**names) for part in contender.command],
            cwd=ROOT if contender.at_root else directory,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                **{name: value.format(**names) for name, value in contender.environment.items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(port, process.pid)
    try:
        _wait(server, process, contender, log)
        yield server
    finally:
        _stop(process)


def _wait(server: Server, process: "subprocess.Popen[bytes]", contender: Contender, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    answer = "nothing"
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            status, _ = server.get("/api/products?limit=1")
            if status == http.HTTPStatus.OK:
                return
            answer = f"status {status}"
        time.sleep(0.05)
    ended = process.poll()
    happened = f"answered {answer} for {START_SECONDS} s" if ended is None else f"ended with status {ended}"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise LabError(f"{contender.name} {happened}. The end of its output:\n{tail}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask its session's processes to end, and then make them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    """A port that nobody listens on."""
    for port in random.sample(PORTS, len(PORTS)):  # by chance, so that two runs at once do not meet
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise LabError(f"no free port from {PORTS.start} to {PORTS.stop - 1}")
