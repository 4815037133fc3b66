"""Reads at once after a write, against servers that keep what they have answered, or do not."""

import json
import time
from collections.abc import Callable
from threading import Lock
from urllib.parse import urlsplit

import pytest

from ops.tools.lab import stale
from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import Request
from ops.tools.lab.servers import Server
from tests.ops.tools.lab.listener import OK, server

Answer = Callable[[bytes], bytes]


def rows(*, keeps: Callable[[int], bool], status: bytes = b"200") -> Answer:
    """Rows in memory; before the PUTs with these numbers take effect a GET has the old row once more."""
    stored: dict[bytes, bytes] = {}
    old: dict[bytes, bytes] = {}
    lock, puts = Lock(), [0]

    def answer(text: bytes) -> bytes:
        method, path = text.split()[:2]
        with lock:
            if method == b"PUT":
                assert b"X-API-Key: k" in text
                if keeps(puts[0]):
                    old[path] = stored[path]
                puts[0] += 1
                stored[path] = text.partition(b"\r\n\r\n")[2]
                return OK.replace(b"ok", b"{}")
            body = old.pop(path, None) or stored.setdefault(path, b'{"qty":0,"price":1}')
        return b"HTTP/1.1 %b OK\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)

    return answer


def look(answer: Answer, seconds: float) -> stale.Seen:
    body = json.dumps({"qty": 0, "price": 1})
    puts = [Request(f"/{number % 6}", "PUT", body) for number in range(13)]
    with server(answer) as url:
        port = urlsplit(url).port or 0
        with stale.watched(Server(port, 0), puts, "qty", {"X-API-Key": "k"}, rate=400) as seen:
            time.sleep(seconds)  # the length of a load
    return seen


def test_reads_that_see_their_write() -> None:
    seen = look(rows(keeps=lambda number: False), 0.5)
    assert seen.pairs > 20
    assert seen.stale == 0


def test_every_third_read_is_stale() -> None:
    seen = look(rows(keeps=lambda number: number % 3 == 0), 0.5)
    assert seen.pairs > 20
    assert seen.stale == pytest.approx(seen.pairs / 3, abs=1)


def test_a_write_that_fails_ends_the_run() -> None:
    with pytest.raises(LabError, match=r"GET /\d has the status 503"):
        look(rows(keeps=lambda number: False, status=b"503"), 0.1)


def test_nothing_to_look_at() -> None:
    with stale.watched(Server(1, 0), [], "", {}) as seen:
        pass
    assert (seen.pairs, seen.stale) == (0, 0)
