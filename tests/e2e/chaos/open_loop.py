"""Requests at fixed times, whether answers come or not: what a crowd does to a service that is too slow for it.

The lab's pacer in a process of its own, which also notes each answer's status.
"""

import gc
import json
import subprocess
import sys
from contextlib import closing
from time import monotonic, perf_counter, sleep
from typing import NamedTuple

from ops.tools.lab.pacer import Connection, Pacer, Stream
from ops.tools.lab.scenarios import Request
from tests.service import PATIENCE, ROOT

# What is due within a tick is sent together, and what has come is read together: at 8,000 requests a second that
# takes 39 % of a core instead of 55.
TICK_SECONDS = 0.001
CONNECTIONS = 800  # with fewer than a worker admits, the crowd would wait in the client


class Answer(NamedTuple):
    """Milliseconds since the request was due, and since it was sent, which is later if the client was late."""

    status: int
    since_due: float
    since_sent: float


class Crowd(NamedTuple):
    answers: list[Answer]
    errors: int  # connections that broke, and requests without an answer
    ended: float  # when the last request was due, on the monotonic clock

    def since_due(self, status: int) -> list[float]:
        return sorted(each.since_due for each in self.answers if each.status == status)

    def since_sent(self, status: int) -> list[float]:
        return sorted(each.since_sent for each in self.answers if each.status == status)


def crowd(url: str, path: str, rate: int, seconds: int) -> Crowd:
    """Send `rate` requests a second."""
    command = [sys.executable, "-m", "tests.e2e.chaos.open_loop", url, path, str(rate), str(seconds)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + PATIENCE, check=True
    )
    answers, errors, ended = json.loads(done.stdout)
    return Crowd([Answer(*each) for each in answers], errors, ended)


class Recorder(Pacer):
    def __init__(self, url: str, stream: Stream) -> None:
        self.answers: list[Answer] = []
        self.sent: dict[Connection, float] = {}
        super().__init__(url, stream)
        while len(self.idle) < CONNECTIONS:
            self._connect()

    def _send(self, request: bytes, due: float, stream: int) -> None:
        self.sent[self.idle[0]] = perf_counter()
        super()._send(request, due, stream)

    def _receive(self, until: float) -> None:
        sleep(TICK_SECONDS)
        for key, _ in self.selector.select(0):
            self._read(key.data)

    def _read(self, connection: Connection) -> None:
        known = len(self.latencies[0])
        super()._read(connection)
        if len(self.latencies[0]) > known:
            waited = 1000 * (perf_counter() - self.sent[connection])
            status = connection.parser.get_status_code()
            self.answers.append(Answer(status, 1000 * self.latencies[0][-1], waited))


def main(url: str, path: str, rate: int, seconds: int) -> None:
    gc.disable()
    with closing(Recorder(url, Stream([Request(path)], rate))) as recorder:
        ended = monotonic() + seconds
        recorder.run(seconds)  # and waits for the last answers
        broken = recorder.errors - sum(each.status >= 400 for each in recorder.answers)
        sys.stdout.write(json.dumps([recorder.answers, broken + recorder.underway, ended]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
