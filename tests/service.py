"""The service as a process: gunicorn, its workers, a real socket."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
PATIENCE = 60  # seconds; a deadline, not a wait
# Each request is computed, also beside other tests that keep the cores busy.
QUIET = {"PAGE_CACHE": "off", "ADMISSION_LIMIT": "64"}


@dataclass
class Service:
    process: subprocess.Popen[bytes]
    address: tuple[str, int]
    client: httpx.Client
    log: Path

    def wait_for(self, line: bytes) -> None:
        """Wait until the service has logged it."""
        deadline = time.monotonic() + PATIENCE
        while line not in self.log.read_bytes():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)


@contextmanager
def serve(
    environment: Mapping[str, str],
    directory: Path,
    *,
    workers: int = 1,
    application: str = "config.asgi:application",
    files: tuple[int, int] | None = None,
    port: int | None = None,
    listener: socket.socket | None = None,
) -> Iterator[Service]:
    """Run the service until the block ends, without its page cache and with a fixed limit of requests by default.

    `files` are its soft and its hard limit of open files.

    The socket, or the `listener` that is given, listens before the service starts, so requests wait for it and nobody
    has to. With a `port` the service binds its own, some time after this has returned.
    """
    log = directory / "service.log"
    given = listener.dup() if listener else socket.create_server(("127.0.0.1", 0))
    with given, log.open("wb") as output:
        address = given.getsockname() if port is None else ("127.0.0.1", port)
        bind = f"fd://{given.fileno()}" if port is None else f"127.0.0.1:{port}"
        command = [sys.executable, "-m", "gunicorn", application]
        if files:
            limits = f'ulimit -Sn {files[0]}; ulimit -Hn {files[1]}; exec "$@"'
            command = ["sh", "-c", limits, "sh", *command]
        process = subprocess.Popen(
            [*command, "--bind", bind],
            cwd=ROOT,
            env={**os.environ, "WEB_CONCURRENCY": str(workers), **QUIET, **environment},
            pass_fds=[given.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=PATIENCE) as client:
            yield Service(process, address, client, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
