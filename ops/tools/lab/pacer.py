"""Open-loop load at rates that k6 cannot make beside a server on the same cores.

One thread sends requests at fixed times, on connections that are kept alive. A latency counts from the time at which
the request was due: it includes a wait for a free connection or for this process (no coordinated omission). The pacer
uses sockets and select(), since the timers of an event loop are in milliseconds. Reads and writes are two streams on
the same connections, each with its own rate and latencies.
"""

import gc
import json
import select
import subprocess
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from heapq import merge
from http import HTTPStatus
from math import ceil
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from socket import create_connection
from time import perf_counter
from typing import NamedTuple
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import Load
from ops.tools.lab.scenarios import Request

PATIENCE = (
    5.0  # seconds to connect, and to wait for the last answers after the end; wrk and k6 have 5 for an answer
)
BUFFER = memoryview(bytearray(256 * 1024))


class Stream(NamedTuple):
    """Requests to make in turn, `rate` of them a second."""

    requests: list[Request]
    rate: int


def run(url: str, streams: list[Stream], seconds: int, *, scratch: Path, headers: str = "") -> Load:
    """Run the pacer in a process of its own, and return its figures. Raises LabError if it fails.

    Of two streams, the first has the reads, the second the writes.
    """
    plan = scratch / "pacer.json"
    plan.write_text(json.dumps({"url": url, "streams": streams, "seconds": seconds, "headers": headers}))
    done = subprocess.run(
        [sys.executable, "-m", "ops.tools.lab.pacer", str(plan)],
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
        self.stream = 0  # the index of the stream that this request belongs to
        self.answered = False

    def receive(self) -> None:
        """Read the bytes of the answer that have come. Raises OSError or HttpParserError."""
        length = self.socket.recv_into(BUFFER)
        if not length:
            raise ConnectionResetError
        self.parser.feed_data(BUFFER[:length])

    def on_message_complete(self) -> None:
        self.answered = True


class Pacer:
    """Makes the requests of all `streams`. `headers` are lines with their ends, for all requests but GET."""

    def __init__(self, url: str, *streams: Stream, headers: str = "") -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.streams = [
            ([request._replace(closes=False).wire(parts.netloc, headers) for request in requests], rate)
            for requests, rate in streams
        ]
        self.rate = sum(rate for _, rate in streams)
        self.underway = self.errors = 0
        self.latencies = [array("d") for _ in streams]
        self.selector = DefaultSelector()
        # Connections are used in turn, so that each process of the server has its part. They are enough for answers
        # that take 50 ms, within the usual limit of 1,024 open files.
        self.idle: deque[Connection] = deque()
        for _ in range(min(max(50, self.rate // 20), 1000)):
            self._connect()

    def run(self, seconds: int) -> Load:
        """Make the requests for `seconds`, and return the figures. Raises LabError if a stream has no answer."""
        sent = 0
        start = perf_counter()
        end = start + seconds
        for offset, stream, request in merge(*(self._schedule(n, seconds) for n in range(len(self.streams)))):
            at = start + offset
            # Receive answers until the request is due, then until a connection is free, but not beyond the end.
            while (now := perf_counter()) < at or (not self.idle and now < end):
                self._receive(at if now < at else end)
            if not self.idle:
                break
            self._send(request, at, stream)
            sent += 1
        while self.underway and perf_counter() < end + PATIENCE:
            self._receive(end + PATIENCE)
        if not all(self.latencies):
            raise LabError("no answer")
        p50, p95, p99 = _percentiles(self.latencies[0])
        writes = _percentiles(self.latencies[1]) if len(self.latencies) > 1 else (None, None, None)
        return Load(
            requests_per_second=sum(map(len, self.latencies)) / (max(end, perf_counter()) - start),
            p50=p50,
            p95=p95,
            p99=p99,
            writes_p50=writes[0],
            writes_p99=writes[2],
            errors=self.errors + self.underway,
            dropped=self.rate * seconds - sent,
        )

    def _schedule(self, stream: int, seconds: int) -> Iterator[tuple[float, int, bytes]]:
        """Yield the time at which each request of a stream is due, in seconds from the start, with the request."""
        requests, rate = self.streams[stream]
        return ((at / rate, stream, requests[at % len(requests)]) for at in range(rate * seconds))

    def _send(self, request: bytes, due: float, stream: int) -> None:
        connection = self.idle.popleft()
        connection.due, connection.stream = due, stream
        self.underway += 1
        try:
            connection.socket.send(request)
        except OSError:
            self._replace(connection)

    def _receive(self, until: float) -> None:
        """Wait for answers, at most until the time `until`, and read those that have come."""
        timeout = max(0.0, until - perf_counter())
        if select.select([self.selector], [], [], timeout)[
            0
        ]:  # the selector's own select() rounds to milliseconds
            for key, _ in self.selector.select(0):
                self._read(key.data)

    def _read(self, connection: Connection) -> None:
        """Read from a connection, and note the latency if its answer is complete."""
        try:
            connection.receive()
        except (OSError, HttpParserError):
            self._replace(connection)
            return
        if connection.answered and connection.due is not None:
            self.latencies[connection.stream].append(perf_counter() - connection.due)
            self.errors += connection.parser.get_status_code() >= HTTPStatus.BAD_REQUEST
            self.underway -= 1
            connection.due, connection.answered = None, False
            self.idle.append(connection)

    def _replace(self, connection: Connection) -> None:
        """Replace a connection that has ended by a new one. This counts as an error, unless the old one was idle."""
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


def _percentiles(latencies: "array[float]") -> tuple[float, ...]:
    """Return the percentiles 50, 95 and 99, in milliseconds."""
    ordered = sorted(latencies)
    return tuple(ordered[ceil(len(ordered) * percent / 100) - 1] * 1000 for percent in (50, 95, 99))


def main(plan: Path) -> None:
    """Make the load of a plan, which run() has written as JSON, and print the figures as JSON."""
    gc.disable()  # a collection would be a pause in every contender's latency
    wanted = json.loads(plan.read_text())
    streams = [Stream([Request(*each) for each in requests], rate) for requests, rate in wanted["streams"]]
    try:
        with closing(Pacer(wanted["url"], *streams, headers=wanted["headers"])) as pacer:
            load = pacer.run(wanted["seconds"])
    except (OSError, LabError) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(asdict(load)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
