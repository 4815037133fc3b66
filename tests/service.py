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
def serve(environment: Mapping[str, str], directory: Path, *, workers: int = 1) -> Iterator[Service]:
    """Run the service until the block ends, without its page cache unless the environment says so.

    The socket listens before the service starts, so requests wait for it and nobody has to.
    """
    log = directory / "service.log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        command = [sys.executable, "-m", "gunicorn", "config.asgi:application"]
        process = subprocess.Popen(
            [*command, "--bind", f"fd://{listener.fileno()}"],
            cwd=ROOT,
            env={**os.environ, "WEB_CONCURRENCY": str(workers), "PAGE_CACHE": "off", **environment},
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        address = listener.getsockname()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=PATIENCE) as client:
            yield Service(process, address, client, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
