"""What a client may send over a connection, and how long it may take: the same with the wire as without."""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import pytest
from django.test import override_settings

from ops.asgi.problems import PROBLEMS
from ops.asgi.types import REFUSED
from ops.gunicorn.edge import PIECE_BYTES
from ops.gunicorn.limits import Limits
from ops.telemetry import request_stats
from tests.ops.asgi import pages
from tests.ops.asgi.views import DEADLINE
from tests.ops.gunicorn.corpus import CLOSE, GET, HALF, MISS, SLOW, TARGET, UPGRADES, request
from tests.ops.gunicorn.twins import Server, Twins, read_all, read_one, twins

LIMITS = Limits(
    max_target_bytes=8192,
    max_head_bytes=32768,
    max_fields=100,
    patience_seconds=0.5,
    min_bytes_per_second=400,
    linger_seconds=0.5,
)
SHARE = int(
    LIMITS.min_bytes_per_second * LIMITS.patience_seconds
)  # bytes of content that are enough for a span of patience
MEGABYTE = 2**20
CHUNKED = b"Transfer-Encoding: chunked"
ECHO = b"/zoo/scope"  # shows what the application was given


class Answer(NamedTuple):
    status: int
    head: bytes
    body: bytes

    @property
    def problem(self) -> Any:
        assert b"content-type: application/problem+json\r\n" in self.head
        assert b"cache-control: no-store\r\n" in self.head
        assert b"connection: close\r\n" in self.head
        assert re.search(rb"x-request-id: [0-9a-f]{32}\r\nx-request-duration: \d", self.head)
        told = json.loads(self.body)
        assert told["status"] == self.status
        return told["code"]


def parse(data: bytes) -> list[Answer]:
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        answers.append(Answer(int(head.split()[1]), head + b"\r\n", data[:length]))
        assert len(answers[-1].body) == length
        data = data[length:]
    return answers


def talk(server: Server, *segments: bytes) -> list[Answer]:
    """The answers to segments that arrive one by one, until the server closes."""
    with server.connect() as connection:
        for segment in segments:
            connection.sendall(segment)
            server.run_there(server.settle())
        return parse(read_all(connection))


@pytest.fixture(scope="module")
def pair() -> Iterator[Twins]:
    with override_settings(REQUEST_LIMITS=LIMITS), twins(timeout_keep_alive=65) as pair:
        pair.warm(TARGET)
        yield pair


def protocol_of(server: Server) -> Any:
    """The only connection's."""
    server.run_there(server.read())
    (protocol,) = server.server_state.connections
    return protocol


# --- Upgrades -------------------------------------------------------------------------------------

FRAMES = {
    "length": ([b"Content-Length: %d" % len(GET)], GET),
    "chunked": ([CHUNKED], b"%x\r\n%b\r\n0\r\n\r\n" % (len(GET), GET)),
    "trailers": ([CHUNKED], b"%x;a=b\r\n%b\r\n0\r\nX-Test: 1\r\n\r\n" % (len(GET), GET)),
}
METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"]
CUTS = ["whole", "later", "in bytes"]


# Each offer with each method, and with each framing; not each with each, which are 324.
CONTENT = [
    *((offer, method, "length", "whole") for offer in UPGRADES for method in METHODS),
    *((offer, b"POST", frame, cut) for offer in UPGRADES for frame in FRAMES for cut in CUTS),
]


@pytest.mark.chaos("h2c upgrade with body; smuggling shapes")
@pytest.mark.parametrize("case", sorted({*CONTENT}))
def test_content_beside_an_upgrade(
    server: Server, caplog: pytest.LogCaptureFixture, case: tuple[str, bytes, str, str]
) -> None:
    """Content beside an upgrade is content, though it looks like a request: one answer."""
    offer, method, frame, cut = case
    fields, body = FRAMES[frame]
    head = request(ECHO, *UPGRADES[offer], *fields, method=method)
    segments = {"whole": [head + body + CLOSE], "later": [head, body, CLOSE]}.get(cut)
    if segments is None:
        segments = [bytes([byte]) for byte in head + body] + [CLOSE]
    shown, page = talk(server, *segments)
    assert (shown.status, page.status) == (200, 200)
    assert repr(GET).encode() in shown.body
    assert b"('method', '%b')" % method in shown.body
    assert b"connection: close" not in shown.head
    assert "uvicorn.error" not in {record.name for record in caplog.records}


@pytest.mark.parametrize("offer", UPGRADES)
@pytest.mark.parametrize("segments", [[0], [0, 1], [0, 0, 0]], ids=["alone", "and another", "three"])
def test_upgrades_without_content(
    server: Server, caplog: pytest.LogCaptureFixture, offer: str, segments: list[int]
) -> None:
    kinds = request(TARGET, *UPGRADES[offer]), GET
    data = b"".join(kinds[kind] for kind in segments)
    assert [answer.status for answer in talk(server, data + CLOSE)] == [200] * (len(segments) + 1)
    assert "uvicorn.error" not in {record.name for record in caplog.records}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_upgrade_of_a_connection_that_closes(server: Server, version: bytes) -> None:
    fields = [b"Connection: close, Upgrade", b"Upgrade: h2c", b"Content-Length: 3"]
    first = request(ECHO, *fields, method=b"POST", body=b"abc", version=version)
    (shown,) = talk(server, first + GET)
    assert repr(b"abc").encode() in shown.body
    assert b"connection: close\r\n" in shown.head


def test_many_upgrades_at_once(server: Server) -> None:
    offer = request(b"/", b"Connection: upgrade", b"Upgrade: x", host=b"x")
    assert len(talk(server, offer * 1000 + CLOSE)) == 1001


@pytest.mark.parametrize("target", [b"localhost:443", b"/page/list", TARGET])
def test_connect(server: Server, target: bytes) -> None:
    first, refusal = talk(server, GET + request(target, method=b"CONNECT") + b"abc")
    assert first.status == 200
    assert (refusal.status, refusal.problem) == (501, "not_implemented")


# --- Limits ---------------------------------------------------------------------------------------


def fields(count: int) -> list[bytes]:
    """With Host, which is always there."""
    return [b"X-%d: 1" % number for number in range(count - 1)]


def padded(size: int) -> bytes:
    """A request whose target and fields have this size."""
    return request(TARGET, b"X: " + b"x" * (size - len(TARGET) - len(b"Host: localhost\r\nX: \r\n")))


def target(size: int) -> bytes:
    return b"/" + b"x" * (size - 1)


@pytest.mark.parametrize("size", [100, 5000, MEGABYTE], ids="in pieces of {}".format)
@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (request(target(8192)), 404, None),
        (request(target(8193)), 414, "target_too_long"),
        (request(TARGET, *fields(100)), 200, None),
        (request(TARGET, *fields(101)), 431, "head_too_large"),
        (padded(32768), 200, None),
        (padded(32769), 431, "head_too_large"),
        (request(TARGET, b"X" * 33000 + b": 1"), 431, "head_too_large"),
    ],
    ids=["target", "long target", "fields", "many fields", "head", "large head", "large name"],
)
def test_limits_of_a_head(server: Server, size: int, data: bytes, status: int, code: str | None) -> None:
    with server.connect() as connection:
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
        if not code:
            connection.sendall(CLOSE)
        answers = parse(read_all(connection))
    assert answers[0].status == status
    if code:
        assert [answer.problem for answer in answers] == [code]


ENDLESS = {
    "field": (b"GET / HTTP/1.1\r\nX: ", b"x", 431),
    "name": (b"GET / HTTP/1.1\r\n", b"x", 431),
    "fields": (b"GET / HTTP/1.1\r\n", b"a:\r\n", 431),
    "target": (b"GET /", b"x", 414),
    "method": (b"", b"G", 400),
    "extension": (request(ECHO, CHUNKED, method=b"POST") + b"3;", b"x", 400),
    "extensions": (
        request(ECHO, CHUNKED, method=b"POST"),
        b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n",
        400,
    ),
    "trailer": (request(ECHO, CHUNKED, method=b"POST") + b"0\r\nX: ", b"x", 400),
    "trailers": (request(ECHO, CHUNKED, method=b"POST") + b"0\r\n", b"a:\r\n", 400),
    "zeros of a length": (request(ECHO, CHUNKED, method=b"POST"), b"0", 400),
    "space": (request(ECHO, method=b"POST")[:-2] + b"Content-Length:", b" ", 431),
    "blank lines": (b"", b"\r\n", 431),
}


@pytest.mark.chaos("200 MB header, 300 MB body, 10 MB of pipelined requests")
@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("before", [b"", MISS * 2])
def test_what_has_no_end(server: Server, kind: str, before: bytes) -> None:
    """What has no end is refused before much of it is read, and the client, which goes on to send, hears that."""
    beginning, more, status = ENDLESS[kind]
    with server.connect() as connection:
        connection.sendall(before + beginning + more * (2 * MEGABYTE // len(more)))
        *others, refusal = parse(read_all(connection))
    assert len(others) == before.count(b"HTTP/1.1")
    assert refusal.status == status
    assert refusal.problem


@pytest.mark.parametrize("kind", ["field", "fields", "target", "extension", "trailer"])
def test_others_are_answered_meanwhile(pair: Twins, kind: str) -> None:
    """50 MB: before, the loop collected them for seconds, piece by piece."""
    beginning, more, _ = ENDLESS[kind]
    answers: list[bytes] = []

    def flood() -> None:
        with pair.wire.connect() as connection:
            connection.sendall(beginning)
            for _ in range(50):
                connection.sendall(more * (MEGABYTE // len(more)))
            answers.append(read_all(connection))

    flooding = threading.Thread(target=flood)
    with pair.wire.connect() as connection:
        flooding.start()
        longest = 0.0
        while flooding.is_alive():
            began = time.perf_counter()
            connection.sendall(MISS)
            assert connection.recv(65536).startswith(b"HTTP/1.1 404")
            longest = max(longest, time.perf_counter() - began)
    (refusal,) = parse(answers[0])
    assert refusal.problem
    assert longest < 0.5


def test_little_is_read_of_what_is_refused(pair: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair.wire.connect() as connection:
        protocol = protocol_of(pair.wire)
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 4 * MEGABYTE)
        read_all(connection)
        assert LIMITS.max_head_bytes < protocol._read <= LIMITS.max_head_bytes + 2 * PIECE_BYTES


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_small_chunks_are_content(server: Server, size: int) -> None:
    """What frames them is more than they are, and is paid for by them."""
    body = b"%x\r\n%b\r\n" % (size, b"x" * size) * 2000 + b"0\r\n\r\n"
    shown, _ = talk(server, request(b"/zoo/length", CHUNKED, method=b"POST") + body + CLOSE)
    assert shown.body == b"%d" % (2000 * size)


def test_a_head_takes_nothing_from_the_trailers(server: Server) -> None:
    """Each has its own limit."""
    head = request(ECHO, CHUNKED, b"X: %b" % (b"x" * 30_000), method=b"POST")
    shown, _ = talk(server, head, b"3\r\nabc\r\n0\r\nX: %b" % (b"x" * 30_000), b"\r\n\r\n", CLOSE)
    assert (shown.status, b"'abc'" in shown.body) == (200, True)


def test_trailers_are_no_fields(server: Server) -> None:
    body = b"3\r\nabc\r\n0\r\nHost: other.invalid\r\nAuthorization: x\r\n\r\n"
    shown, _ = talk(server, request(ECHO, CHUNKED, method=b"POST"), body, CLOSE)
    assert b"'abc'" in shown.body
    assert b"other.invalid" not in shown.body
    assert b"authorization" not in shown.body


# --- Framing --------------------------------------------------------------------------------------


@pytest.mark.chaos("h2c upgrade with body; smuggling shapes")
@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (501, [b"Transfer-Encoding: gzip, chunked"]),
        (501, [b"Transfer-Encoding: gzip", CHUNKED]),
        (501, [b"Transfer-Encoding: identity"]),
        (501, [b"Transfer-Encoding: gzip"]),
        (400, [b"transfer-encoding: chunked, chunked"]),
        (400, [CHUNKED, CHUNKED]),
        (400, [b"Transfer-Encoding:"]),
        (400, [CHUNKED, b"Content-Length: 5"]),
        (400, [b"Content-Length: 5", CHUNKED]),
        (400, [b"Content-Length: 5", b"Content-Length: 5"]),
        (400, [b"Content-Length: 5", b"Content-Length: 6"]),
        (400, [b"Content-Length: 5, 5"]),
        (400, [b"Content-Length: -5"]),
        (400, [b"Content-Length: 99999999999999999999999"]),
        (400, [b"Transfer-Encoding: chunked,", b" gzip"]),
        (400, [b"X-Test: a", b" b"]),
        (400, [b"Transfer-Encoding : chunked"]),
        (400, [b"Transfer-Encoding\x0b: chunked"]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("upgrade", [[], UPGRADES["h2c"]], ids=["", "upgrade"])
def test_framing_that_is_in_doubt(
    server: Server, status: int, fields: list[bytes], upgrade: list[bytes]
) -> None:
    """Framing in doubt is 400 or 501 and the end: no view is asked, and nothing that follows is read as a request."""
    pages.started.clear()
    data = request(b"/slow", *fields, *upgrade, method=b"POST", body=b"0\r\n\r\n")
    first, refusal = talk(server, GET + data + GET)
    assert first.status == 200
    assert refusal.status == status
    assert refusal.problem in ("bad_request", "unknown_coding")
    assert not pages.started.is_set()


def test_http_1_0_has_no_100_continue(server: Server) -> None:
    head = b"POST %b HTTP/1.0\r\nHost: testserver\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n" % ECHO
    with server.connect() as connection:
        connection.sendall(head)
        server.run_there(server.settle())
        connection.sendall(b"x")
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_http_1_0_has_no_chunks(server: Server) -> None:
    (refusal,) = talk(server, request(ECHO, CHUNKED, method=b"POST", version=b"1.0", body=b"0\r\n\r\n"))
    assert (refusal.status, refusal.problem) == (400, "bad_request")


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_http_1_0_gets_no_chunks(server: Server, method: bytes) -> None:
    """RFC 9112, 6.1: an answer without a length ends with the connection."""
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/chunked", method=method, version=b"1.0"))
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in head
    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert body == (b"" if method == b"HEAD" else b"abcabc")


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
def test_another_version_ends_with_its_answer(server: Server, version: bytes) -> None:
    """Nothing frames a stream there, whatever the client asks for."""
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/chunked", b"Connection: keep-alive", version=version))
        answer = read_all(connection)
    assert not answer.startswith(b"HTTP/1.1 200 ") or b"\r\nconnection: close" in answer


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_no_reset_overtakes_an_answer_before_the_contents_end(server: Server, version: bytes) -> None:
    """On a connection that closes with the answer."""
    head = request(
        b"/zoo/early", b"Connection: close", b"Content-Length: %d" % MEGABYTE, method=b"POST", version=version
    )
    with server.connect() as connection:
        connection.sendall(head)
        server.run_there(server.settle())
        with suppress(BlockingIOError):
            connection.sendall(bytes(MEGABYTE // 2))
        server.run_there(server.settle())
        connection.sendall(bytes(100))  # after a reset, it would fail
        (answer,) = parse(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert answer.body == b"abc"


def test_what_was_cut_does_not_look_whole(server: Server) -> None:
    """Where the end of the connection is the end of the answer."""
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/cut", version=b"1.0"))
        with pytest.raises(ConnectionResetError):
            [*iter(lambda: connection.recv(65536), b"")]


def test_a_connection_that_has_ended_resets_no_other(server: Server) -> None:
    """The next one has its socket's number."""
    pages.started.clear()
    pages.released.clear()
    with ExitStack() as clients:
        # With numbers already, so that those which become free are the server's.
        others = [clients.enter_context(socket.socket()) for _ in range(64)]
        with server.connect() as connection:
            connection.sendall(request(b"/zoo/held", version=b"1.0"))
            assert pages.started.wait(DEADLINE)
            ended = protocol_of(server)
        until = time.monotonic() + DEADLINE
        while ended in server.server_state.connections:
            assert time.monotonic() < until
            server.run_there(server.read())
        found: list[Any] = []
        while not found:
            others.pop().connect(server.address)
            server.run_there(server.read())
            connections: list[Any] = [*server.server_state.connections]
            found = [each for each in connections if each._socket == ended._socket]
        pages.released.set()
        server.run_there(server.settle())
        served = found[0].transport.get_extra_info("socket")
        assert struct.unpack("ii", served.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (0, 0)


def test_nothing_runs_behind_an_answer_that_closes(server: Server) -> None:
    """Also where the content of a later request is on its way (RFC 9112, 9.6)."""
    pages.started.clear()
    whole = [
        request(target, b"Content-Length: 0", method=b"POST") for target in (b"/zoo/close", b"/zoo/waiting")
    ]
    part = request(b"/zoo/length", b"Content-Length: 9", method=b"POST", body=b"abc")
    with server.connect() as connection:
        connection.sendall(b"".join([*whole, part]))
        (answer,) = parse(read_all(connection))
    assert (answer.status, pages.started.is_set()) == (200, False)


def test_an_early_answer_is_read_at_the_clients_pace(server: Server) -> None:
    head = request(b"/zoo/much", b"Connection: close", b"Content-Length: 100", method=b"POST", body=b"abc")
    size = 0
    with server.connect() as connection:
        connection.sendall(head)
        while piece := connection.recv(2**20, socket.MSG_WAITALL):
            size += len(piece)
            time.sleep(
                LIMITS.linger_seconds / 10
            )  # it takes longer than `linger_seconds`, and never pauses for long
    assert size > 2**25


@pytest.mark.parametrize("value", [b"Chunked", b" chunked ", b"\tCHUNKED"])
def test_chunked_as_it_may_be_written(server: Server, value: bytes) -> None:
    body = b"3\r\nabc\r\n0\r\n\r\n"
    shown, _ = talk(server, request(ECHO, b"Transfer-Encoding:" + value, method=b"POST", body=body) + CLOSE)
    assert b"'abc'" in shown.body


# --- Targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "host", "path", "seen"),
    [
        (b"http://localhost/zoo/scope?a=1", b"other.invalid", "/zoo/scope", b"localhost"),
        (b"http://localhost:80/zoo/scope", b"localhost", "/zoo/scope", b"localhost:80"),
        (b"HTTP://LOCALHOST/zoo/scope", b"", "/zoo/scope", b"LOCALHOST"),
        (b"https://127.0.0.1/zoo/scope#f", b"localhost", "/zoo/scope", b"127.0.0.1"),
    ],
)
def test_absolute_target(server: Server, target: bytes, host: bytes, path: str, seen: bytes) -> None:
    shown, _ = talk(server, request(target, host=host) + CLOSE)
    assert f"('path', '{path}')".encode() in shown.body
    assert repr((b"host", seen)).encode() in shown.body
    assert shown.body.count(b"b'host'") == 1


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://other.invalid/page/list", b"localhost", 400),
        (b"http://localhost@other.invalid/page/list", b"localhost", 400),
        (b"http://other.invalid@localhost/page/list", b"localhost", 400),
        (b"http://localhost", b"localhost", 404),
        (b"http://localhost?a=1", b"localhost", 404),
        (b"http://localhost/page/list", b"other.invalid", 200),
        (b"http://localhost/page/list", None, 400),
        (b"ws://localhost/page/list", b"localhost", 400),
        (b"ftp://localhost/page/list", b"localhost", 400),
        (b"http:///page/list", b"localhost", 400),
        (b"localhost:80", b"localhost", 400),
        (b"*", b"localhost", 400),
    ],
)
def test_absolute_target_of_a_page(server: Server, target: bytes, host: bytes | None, status: int) -> None:
    answers = talk(server, request(target, host=host) + CLOSE)
    assert answers[0].status == status


def test_two_hosts_stay_two(server: Server) -> None:
    answers = talk(server, request(b"http://localhost/page/list", b"Host: localhost") + CLOSE)
    assert answers[0].status == 400


def test_options_of_everything(server: Server) -> None:
    answer, page = talk(server, request(b"*", method=b"OPTIONS") + CLOSE)
    assert answer.status == 404
    assert page.status == 200


def test_a_method_that_the_parser_does_not_know(server: Server) -> None:
    """It is a token, as RFC 9110 allows: the answer does not call it malformed."""
    (refusal,) = talk(server, request(ECHO, method=b"FOO"))
    assert (refusal.status, refusal.problem) == (400, "bad_request")
    assert b"or its method is unknown" in refusal.body


def test_http_2_is_not_spoken(server: Server) -> None:
    (refusal,) = talk(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert (refusal.status, refusal.problem) == (400, "bad_request")


# --- Refusals -------------------------------------------------------------------------------------

BAD = b"\x00"
BROKEN = request(ECHO, CHUNKED, method=b"POST") + b"x\r\n"


@pytest.mark.parametrize("bad", [BAD, BROKEN, request(target(9000))], ids=["garbage", "chunk", "target"])
def test_refusal_comes_in_order(server: Server, bad: bytes) -> None:
    pages.started.clear()
    pages.released.clear()
    with server.connect() as connection:
        connection.sendall(GET + SLOW + MISS + bad + GET)
        assert pages.started.wait(DEADLINE)
        server.run_there(server.read())
        pages.released.set()
        answers = parse(read_all(connection))
    assert [answer.status for answer in answers[:3]] == [200, 200, 404]
    assert [answer.problem for answer in answers[3:]]
    assert len(answers) == 4


def test_content_that_breaks(server: Server) -> None:
    """Its request, which waits for the rest, is told that nothing comes."""
    (refusal,) = talk(server, request(ECHO, CHUNKED, method=b"POST"), b"3\r\nabc\r\n", b"x\r\n")
    assert (refusal.status, refusal.problem) == (400, "bad_request")
    server.run_there(server.settle())
    assert not server.server_state.tasks


def test_content_that_breaks_before_it_is_asked_for(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """The application reads on after the refusal, which is the last that is written."""
    head = request(ECHO, CHUNKED, b"Expect: 100-continue", method=b"POST")
    (refusal,) = talk(server, head + b"ZZ\r\n")
    assert (refusal.status, refusal.problem) == (400, "bad_request")
    server.run_there(server.settle())
    assert not [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"]


def test_the_application_is_told_how_content_was_refused(server: Server) -> None:
    """For the metrics: it has a disconnect, as from a client that has left."""
    with server.connect() as connection:
        connection.sendall(request(ECHO, CHUNKED, method=b"POST") + b"3\r\nabc\r\n")
        server.run_there(server.read())
        state = protocol_of(server).cycle.scope["state"]
        connection.sendall(b"x\r\n")
        read_all(connection)
    assert state[REFUSED] == 400


def test_content_that_breaks_after_its_answer(server: Server) -> None:
    (answer,) = talk(server, request(b"/zoo/early", CHUNKED, method=b"POST"), b"x\r\n")
    assert answer.body == b"abc"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request(target(8193), method=b"HEAD"), 414),
        (request(target(40_000), method=b"HEAD"), 414),
        (request(TARGET, *fields(101), method=b"HEAD"), 431),
        (request(TARGET, b"Transfer-Encoding: gzip", method=b"HEAD"), 501),
        (request(TARGET, b"X:\x00", method=b"HEAD"), 400),
        (request(TARGET, method=b"HEAD")[:-2], 408),
        (request(ECHO, CHUNKED, method=b"HEAD") + b"x\r\n", 400),
        (request(ECHO, b"Content-Length: 9", method=b"HEAD") + b"abc", 408),
    ],
    ids=["target", "endless", "fields", "coding", "garbage", "late", "chunk", "late content"],
)
def test_refusal_of_a_head_request_has_no_content(server: Server, data: bytes, status: int) -> None:
    """RFC 9110, 9.3.2."""
    with server.connect() as connection:
        connection.sendall(data)
        head, _, content = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
    assert not content


@pytest.mark.parametrize("data", [b"HEAX", GET + b"\x00", request(TARGET, method=b"HEAD") + b"\x00"])
def test_a_refusal_before_a_method_has_content(server: Server, data: bytes) -> None:
    """Whatever the request before it was."""
    with server.connect() as connection:
        connection.sendall(data)
        assert b'"code":"bad_request"' in read_all(connection)


def test_a_hit_again_behind_a_refusal_is_dropped(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Blank lines alone are no request that makes the wire forget the one before."""
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(GET)
        read_one(answers)
        connection.sendall(b"\r\n" * (4 * LIMITS.max_head_bytes))
        (refusal,) = parse(answers.read())
        connection.sendall(GET)
        server.run_there(server.settle())
    assert refusal.status == 431
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_refusals_are_counted(server: Server) -> None:
    request_stats.count()
    answers = request_stats.REQUESTS.labels("unmatched", "other", "414")
    codes, before = (
        PROBLEMS.labels("target_too_long"),
        (answers.value, PROBLEMS.labels("target_too_long").value),
    )
    talk(server, request(target(9000)))
    request_stats.count()
    assert (answers.value, codes.value) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (BAD, 400),
        (request(b"*"), 400),
        (request(b"/\xff"), 400),
        (request(target(8193)), 414),
        (request(TARGET, *fields(101)), 431),
        (request(ECHO, b"Transfer-Encoding: gzip", method=b"POST"), 501),
    ],
    ids=["garbage", "form of a target", "byte in a target", "target", "fields", "coding"],
)
@pytest.mark.parametrize("before", ["upgrade", "error"])
def test_refusal_while_an_error_is_handled(
    server: Server, caplog: pytest.LogCaptureFixture, before: str, bad: bytes, status: int
) -> None:
    """The parser's, which stops at an upgrade, or an application's, whose answer has what waits behind it read."""
    data = request(TARGET, *UPGRADES["h2c"])
    if before == "error":  # 17 requests in the first piece, of which 16 wait
        data = request(b"/zoo/raise") + request(target(PIECE_BYTES // 17)) * 17
    *_, refusal = talk(server, data + bad)
    assert (refusal.status, bool(refusal.problem)) == (status, True)
    assert "ops.edge" not in {record.name for record in caplog.records}


# --- Deadlines ------------------------------------------------------------------------------------

POST = request(ECHO, b"Content-Length: 100000", method=b"POST")


def until_closed(connection: socket.socket) -> tuple[list[Answer], float]:
    began = time.monotonic()
    return parse(read_all(connection)), time.monotonic() - began


@pytest.mark.chaos("1,000 slowloris sockets")
@pytest.mark.parametrize(
    ("data", "statuses"),
    [
        (b"", []),
        (b"\r\n", []),
        (HALF, [408]),
        (GET[:-1], [408]),
        (b"GE", [408]),
        (POST, [408]),
        (POST + b"x" * 10, [408]),
        (request(ECHO, CHUNKED, method=b"POST") + b"3\r\nabc\r\n", [408]),
        (request(ECHO, CHUNKED, method=b"POST") + b"0\r\nX: ", [408]),
        (request(ECHO, *UPGRADES["h2c"], b"Content-Length: 9", method=b"POST") + b"abc", [408]),
        (request(b"/zoo/early", b"Content-Length: 9", method=b"POST") + b"abc", [200]),
        (GET + HALF, [200, 408]),
        (MISS + HALF, [404, 408]),
        (MISS + GET + POST, [404, 200, 408]),
    ],
)
def test_what_never_ends(server: Server, data: bytes, statuses: list[int]) -> None:
    """A request that never ends is 408 at its deadline, and the connection is closed."""
    with server.connect() as connection:
        connection.sendall(data)
        answers, seconds = until_closed(connection)
    assert [answer.status for answer in answers] == statuses
    assert not statuses or statuses[-1] != 408 or answers[-1].problem == "request_timeout"
    assert LIMITS.patience_seconds / 2 < seconds < DEADLINE / 2


@pytest.mark.chaos("1,000 slowloris sockets")
@pytest.mark.parametrize(
    "beginning", [b"GET / HTTP/1.1\r\nX: ", POST, b"\r\n"], ids=["head", "content", "blank lines"]
)
def test_drip(server: Server, beginning: bytes) -> None:
    """A byte now and then does not keep a connection."""
    with server.connect() as connection:
        connection.sendall(beginning)
        connection.settimeout(LIMITS.patience_seconds / 10)
        until, answer = time.monotonic() + DEADLINE / 2, None
        while answer is None:
            assert time.monotonic() < until
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"\r\n" if beginning == b"\r\n" else b"x")
    assert answer.startswith(b"" if beginning == b"\r\n" else b"HTTP/1.1 408 ")


def test_content_without_end_after_its_answer(server: Server) -> None:
    """Content that comes steadily, and that nobody reads any more, does not keep a connection."""
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/early", CHUNKED, method=b"POST"))
        (answer,) = parse(connection.recv(65536))
        assert answer.body == b"abc"
        connection.settimeout(LIMITS.patience_seconds / 10)
        began, end = time.monotonic(), None
        while end is None:
            assert time.monotonic() < began + DEADLINE / 2
            try:
                end = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"80\r\n%b\r\n" % bytes(128))
    assert end == b""
    assert time.monotonic() - began > LIMITS.patience_seconds / 2


def test_slow_content_is_waited_for(server: Server) -> None:
    """For many times as long as a silent client is."""
    size = 10 * SHARE
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/length", b"Content-Length: %d" % size, method=b"POST"))
        for _ in range(20):
            time.sleep(LIMITS.patience_seconds / 5)  # the client's pace is what is tested
            connection.sendall(b"x" * (size // 20))
        connection.sendall(CLOSE)
        answer, _ = parse(read_all(connection))
    assert answer.body == b"%d" % size


@pytest.mark.parametrize("headers", [[], [b"Expect: 100-continue"]], ids=["paused", "not asked for"])
def test_client_is_not_blamed_for_the_application(server: Server, headers: list[bytes]) -> None:
    """That reads late what is large, and so keeps the client from sending it."""
    size = 4 * MEGABYTE
    pages.started.clear()
    pages.released.clear()
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/waiting", b"Content-Length: %d" % size, *headers, method=b"POST"))
        sender = threading.Thread(target=connection.sendall, args=[b"x" * size])
        if not headers:
            sender.start()
        assert pages.started.wait(DEADLINE)
        time.sleep(3 * LIMITS.patience_seconds)  # the application's pace is what is tested
        pages.released.set()
        if headers:
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sender.start()
        sender.join(DEADLINE)
        connection.sendall(CLOSE)
        answer, _ = parse(read_all(connection))
    assert answer.body == b"%d" % size


def test_slow_application_has_its_time(server: Server) -> None:
    pages.started.clear()
    pages.released.clear()
    with server.connect() as connection:
        connection.sendall(SLOW)
        assert pages.started.wait(DEADLINE)
        time.sleep(3 * LIMITS.patience_seconds)
        pages.released.set()
        connection.sendall(CLOSE)
        assert [answer.status for answer in parse(read_all(connection))] == [200, 200]


def test_client_that_reads_slowly(server: Server) -> None:
    """The kernel holds megabytes for it, so that nothing leaves the server for long."""
    with server.connect() as connection:
        connection.sendall(request(b"/zoo/much"))
        protocol = protocol_of(server)
        until = time.monotonic() + 5 * LIMITS.patience_seconds
        while time.monotonic() < until:
            assert connection.recv(65536)
            time.sleep(LIMITS.patience_seconds / 10)  # the client's pace is what is tested
        assert protocol in server.server_state.connections


@pytest.mark.parametrize(
    "data",
    [
        request(b"/zoo/much"),
        request(b"/zoo/stream", version=b"1.0"),
        request(b"/zoo/unsized", version=b"1.0"),
        request(b"/zoo/unsized", b"Content-Length: 9", method=b"POST", version=b"1.0", body=b"abc"),
    ],
    ids=["length", "pieces", "closing", "early"],
)
def test_client_that_does_not_read(server: Server, data: bytes) -> None:
    """What it misses is an error: where the end of the connection is the end of the answer, it would look whole."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        connection.sendall(data)
        protocol = protocol_of(server)
        until = time.monotonic() + DEADLINE
        while protocol in server.server_state.connections:
            assert time.monotonic() < until
            server.run_there(server.read())
        with pytest.raises(ConnectionResetError):
            [*iter(lambda: connection.recv(65536), b"")]
