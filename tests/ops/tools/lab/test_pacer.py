"""The pacer against servers on real sockets that answer early, late, wrongly or not at all."""

import threading
import time
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from ops.tools.lab import pacer
from ops.tools.lab.failure import LabError
from ops.tools.lab.measurement import Load
from ops.tools.lab.pacer import Stream
from ops.tools.lab.scenarios import Request
from tests.ops.tools.lab.listener import OK, Answer, server


def paced(answer: Answer, rate: int, *paths: str) -> Load:
    with server(answer) as url, closing(pacer.Pacer(url, stream(rate, *paths))) as load:
        return load.run(1)


def stream(rate: int, *paths: str) -> Stream:
    return Stream([Request(path) for path in paths or ["/"]], rate)


def test_all_that_is_due_is_asked_for_in_turn() -> None:
    asked = []

    def answer(line: bytes) -> bytes:
        asked.append(line.split()[1])
        return OK

    load = paced(answer, 200, "/a", "/b")
    assert sorted(asked) == [b"/a"] * 100 + [b"/b"] * 100
    assert (load.errors, load.dropped) == (0, 0)
    assert load.requests_per_second == pytest.approx(200, rel=0.1)


def test_a_stall_counts_against_every_request_that_was_due_in_it() -> None:
    """160 of 200 requests are due in a stall of 0.8 s and wait 0.4 s on average, but there are only 50 connections.

    Counted from when they were sent, 110 of the 160 would seem not to have waited, and the median to be nothing.
    """
    end = 0.0

    def answer(line: bytes) -> bytes:
        nonlocal end
        end = end or time.perf_counter() + 0.8
        time.sleep(max(0.0, end - time.perf_counter()))
        return OK

    load = paced(answer, 200)
    assert load.p50 == pytest.approx(300, abs=50)
    assert load.p99 == pytest.approx(790, abs=50)
    assert (load.errors, load.dropped) == (0, 0)


def test_who_never_answers_makes_errors_and_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 of 200 requests are sent, as many as there are connections; one is answered, for there to be a figure."""
    monkeypatch.setattr(pacer, "PATIENCE", 0.1)
    over = threading.Event()
    asked = count()

    def answer(line: bytes) -> bytes:
        if next(asked):
            over.wait()
        return OK

    with server(answer) as url, closing(pacer.Pacer(url, stream(200))) as load:
        seen = load.run(1)
        over.set()
    assert (seen.errors, seen.dropped) == (50, 149)


@pytest.mark.parametrize(
    ("reply", "errors"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 0),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 0),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", 30),
        (b"what is not HTTP", 30),
        (b"", 30),
    ],
)
def test_errors(reply: bytes, errors: int) -> None:
    """Every second of 60 answers is the reply."""
    asked = count()

    def answer(line: bytes) -> bytes:
        return reply if next(asked) % 2 else OK

    assert paced(answer, 60).errors == errors


def test_a_connection_that_closes_while_it_is_idle_is_no_error() -> None:
    answered = False

    def answer(line: bytes) -> bytes:
        nonlocal answered
        answered = not answered
        return OK.replace(b"OK", b"OK\r\nconnection: close") if answered else b""

    with server(answer) as url, closing(pacer.Pacer(url, stream(1))) as load:
        assert load.run(1).errors == 0


def test_reads_and_writes_have_latencies_of_their_own(tmp_path: Path) -> None:
    asked = []

    def answer(text: bytes) -> bytes:
        asked.append(text)
        if text.startswith(b"POST"):
            time.sleep(0.05)
        return OK

    writes = Stream([Request("/b", "POST", '{"é":1}')], 20)
    with server(answer) as url:
        load = pacer.run(url, [stream(100, "/a"), writes], 1, scratch=tmp_path, headers="X-API-Key: k\r\n")
    reads = [text for text in asked if text.startswith(b"GET")]
    assert (len(reads), len(asked)) == (100, 120)
    assert load.requests_per_second == pytest.approx(120, rel=0.1)
    assert load.p50 < 25
    assert load.writes_p50
    assert load.writes_p99
    assert 50 <= load.writes_p50 <= load.writes_p99
    host = url.removeprefix("http://").encode()
    assert {*asked} == {
        b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % host,
        b"POST /b HTTP/1.1\r\nHost: %b\r\nX-API-Key: k\r\nContent-Type: application/json\r\n"
        b'Content-Length: 8\r\n\r\n{"\xc3\xa9":1}' % host,
    }


def test_its_own_process(tmp_path: Path) -> None:
    def answer(line: bytes) -> bytes:
        return OK

    with server(answer) as url:
        load = pacer.run(url, [stream(50)], 1, scratch=tmp_path)
    assert (load.errors, load.dropped) == (0, 0)
    assert 0 < load.p50 <= (load.p95 or 0) <= load.p99


def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"the pacer failed: .*refused"):
        pacer.run("http://127.0.0.1:1", [stream(50)], 1, scratch=tmp_path)
