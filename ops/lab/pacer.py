"""Open-loop load at rates that k6 cannot make beside a server on the same cores.

One thread, connections that are kept alive, requests at fixed times. A latency counts from when its request was due:
one that waits for a free connection, or for this process, has waited (no coordinated omission). Sockets and select()
rather than an event loop, whose timers tick in milliseconds.
"""

import gc
import json
import select
import subprocess
import sys
from array import array
from collections import deque
from contextlib import closing
from dataclasses import asdict
from http import HTTPStatus
from math import ceil
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from socket import create_connection
from time import perf_counter
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from ops.lab.failure import LabError
from ops.lab.measurement import Load

PATIENCE = 5.0  # seconds for an answer, as wrk's and k6's
BUFFER = memoryview(bytearray(256 * 1024))


def run(url: str, paths: list[str], seconds: int, *, rate: int, scratch: Path) -> Load:
    plan = scratch / "pacer.json"
    plan.write_text(json.dumps({"url": url, "paths": paths, "rate": rate, "seconds": seconds}))
    done = subprocess.run(
        [sys.executable, "-m", "ops.lab.pacer", str(plan)],
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
    )
    if done.returncode:
        raise LabError(f"the pacer failed: {done.stderr.strip()[-2000:]}")
    return Load(**json.loads(done.stdout))


class Connection:
    """A connection that is kept alive, with at most one request under way."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = create_connection(address, PATIENCE)
        self.socket.settimeout(0)
        self.parser = HttpResponseParser(self)
        self.due: float | None = None  # when the request under way was due
        self.answered = False

    def receive(self) -> None:
        """Read what has come of the answer; raises OSError or HttpParserError."""
        length = self.socket.recv_into(BUFFER)
        if not length:
            raise ConnectionResetError
        self.parser.feed_data(BUFFER[:length])

    def on_message_complete(self) -> None:
        self.answered = True


class Pacer:
    """Asks for the `paths` in turn, `rate` times a second."""

    def __init__(self, url: str, paths: list[str], rate: int) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.requests = [f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode() for path in paths]
        self.rate = rate
        self.underway = self.errors = 0
        self.latencies = array("d")
        self.selector = DefaultSelector()
        # Used in turn, so that each process of the server has its part. Enough for answers that take 50 ms, within
        # the usual limit of 1,024 open files.
        self.idle: deque[Connection] = deque()
        for _ in range(min(max(50, rate // 20), 1000)):
            self._connect()

    def run(self, seconds: int) -> Load:
        sent, due = 0, self.rate * seconds
        start = perf_counter()
        end = start + seconds
        while sent < due and self._free(at := start + sent / self.rate, end):
            self._send(self.requests[sent % len(self.requests)], at)
            sent += 1
        while self.underway and perf_counter() < end + PATIENCE:
            self._receive(end + PATIENCE)
        if not self.latencies:
            raise LabError("no answer")
        return Load(
            requests_per_second=len(self.latencies) / (max(end, perf_counter()) - start),
            **self._percentiles(),
            errors=self.errors + self.underway,
            dropped=due - sent,
        )

    def _percentiles(self) -> dict[str, float]:
        """In milliseconds."""
        ordered = sorted(self.latencies)
        return {
            f"p{percent}": ordered[ceil(len(ordered) * percent / 100) - 1] * 1000 for percent in (50, 95, 99)
        }

    def _free(self, at: float, end: float) -> bool:
        """Wait until `at`; then for a free connection, but not beyond `end`. Whether there is one."""
        while (now := perf_counter()) < at or (not self.idle and now < end):
            self._receive(at if now < at else end)
        return bool(self.idle)

    def _send(self, request: bytes, due: float) -> None:
        connection = self.idle.popleft()
        connection.due = due
        self.underway += 1
        try:
            connection.socket.send(request)
        except OSError:
            self._replace(connection)

    def _receive(self, until: float) -> None:
        """Wait for answers until then, at most."""
        timeout = max(0.0, until - perf_counter())
        if select.select([self.selector], [], [], timeout)[0]:  # its own select() rounds up to milliseconds
            for key, _ in self.selector.select(0):
                self._read(key.data)

    def _read(self, connection: Connection) -> None:
        try:
            connection.receive()
        except (OSError, HttpParserError):
            self._replace(connection)
            return
        if connection.answered and connection.due is not None:
            self.latencies.append(perf_counter() - connection.due)
            self.errors += connection.parser.get_status_code() >= HTTPStatus.BAD_REQUEST
            self.underway -= 1
            connection.due, connection.answered = None, False
            self.idle.append(connection)

    def _replace(self, connection: Connection) -> None:
        """A new connection for one that has ended: an error, unless it was idle."""
        if connection.due is None:
            self.idle.remove(connection)
        else:
            self.underway -= 1
            self.errors += 1
        self.selector.unregister(connection.socket)
        connection.socket.close()
        self._connect()

    def _connect(self) -> None:
        connection = Connection(self.address)
        self.selector.register(connection.socket, EVENT_READ, connection)
        self.idle.append(connection)

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            key.data.socket.close()
        self.selector.close()


def main(plan: Path) -> None:
    gc.disable()  # a collection would be a pause in every contender's latency
    wanted = json.loads(plan.read_text())
    try:
        with closing(Pacer(wanted["url"], wanted["paths"], wanted["rate"])) as pacer:
            load = pacer.run(wanted["seconds"])
    except (OSError, LabError) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(asdict(load)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
