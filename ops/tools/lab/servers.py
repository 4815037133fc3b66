"""Contenders as processes: one at a time, on loopback, always stopped at the end."""

import http.client
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ops.tools import signals
from ops.tools.lab.contender import Contender
from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import Request

ROOT = Path(__file__).parents[3]
PORTS = range(55200, 55300)
START_SECONDS = 30
STOP_SECONDS = 10
KILL_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Server:
    """A contender that answers."""

    port: int
    session: int  # the id of the session that all its processes are in

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of a GET."""
        return self.send(Request(path), {})

    def send(self, request: Request, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Send a request on a new connection, and return status and body. Raises OSError or HTTPException."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            content = {"Content-Type": "application/json"} if request.body else {}
            connection.request(
                request.method, request.path, request.body.encode() or None, {**content, **headers}
            )
            response = connection.getresponse()
            return response.status, response.read()


@contextmanager
def serve(contender: Contender, workers: int, directory: Path, path: str) -> Iterator[Server]:
    """Start a contender, yield it once it answers `path` with status 200, and stop it after the block.

    Its output goes to a file in `directory`. Raises LabError, with the end of the output, if it does not answer.
    """
    port = _free_port()
    names = {"python": sys.executable, "port": port, "workers": workers, "start": secrets.token_hex(8)}
    log = directory / f"{contender.name}.log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        with signals.deferred():
            process = subprocess.Popen(
                [part.format(**names) for part in contender.command],
                cwd=contender.root if contender.at_root else directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(contender.root),
                    **{name: value.format(**names) for name, value in contender.environment.items()},
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.callback(_stop, process)
        server = Server(port, process.pid)
        _wait(server, process, contender, log, path)
        yield server


def _wait(
    server: Server, process: "subprocess.Popen[bytes]", contender: Contender, log: Path, path: str
) -> None:
    deadline = time.monotonic() + START_SECONDS
    answer = "nothing"
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            status, _ = server.get(path)
            if status == http.HTTPStatus.OK:
                return
            answer = f"status {status}"
        time.sleep(0.05)
    ended = process.poll()
    happened = f"answered {answer} for {START_SECONDS} s" if ended is None else f"ended with status {ended}"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise LabError(f"{contender.name} {happened}. The end of its output:\n{tail}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the processes of the contender's session to end, and kill them if they do not."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        for _ in range(KILL_SECONDS * 100):  # until the last process has gone: it may use the database
            os.killpg(process.pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.01)


def _free_port() -> int:
    """Return a free port of PORTS. Raises LabError if there is none."""
    for port in random.sample(
        PORTS, len(PORTS)
    ):  # in a random order, so that two runs at once do not collide
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise LabError(f"no free port from {PORTS.start} to {PORTS.stop - 1}")
