"""An answer in one piece is what uvicorn makes of two messages, byte for byte, whatever is unusual about it."""

import asyncio
import re
import socket
from collections.abc import Coroutine, Iterator
from typing import Any, cast

import pytest

from ops.asgi import answering
from ops.asgi.answering import Defaults, send_answer
from ops.asgi.types import Application, Fields, Message, Receive, Scope, Send
from tests.ops.asgi.server import Serving, serve
from tests.ops.asgi.views import DEADLINE

LONG = b"x" * 1_000_000
HUGE = 16 * LONG  # more than the buffers of a connection take
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
DEFAULTS = Defaults([(b"x-one", b"1"), (b"x-two", b"2")])
DATE = re.compile(rb"date: [^\r]*\r\n")


def sized(body: bytes, *fields: tuple[bytes, bytes]) -> tuple[Fields, bytes]:
    return [(b"content-type", b"text/plain"), *fields, (b"content-length", b"%d" % len(body))], body


class Twofold:
    """Gives its answer in one piece, or in two messages."""

    def __init__(self) -> None:
        self.whole = True
        self.status = 200
        self.fields, self.body = sized(b"the body")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.whole:
            await send_answer(send, self.status, self.fields, self.body)
        else:
            await send({"type": "http.response.start", "status": self.status, "headers": self.fields})
            await send({"type": "http.response.body", "body": self.body})


class WithDefaults(Twofold):
    """The same with fields of every answer: beside the answer, or among its fields."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.whole:
            await send_answer(send, self.status, self.fields, self.body, DEFAULTS)
            return
        fields = self.fields
        self.fields = [*fields, *DEFAULTS.of(self.status).missing(fields)]
        await super().__call__(scope, receive, send)
        self.fields = fields


@pytest.fixture
def twofold(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Serving, Twofold]]:
    application = Twofold()
    with serve(application, monkeypatch) as serving:
        yield serving, application


@pytest.fixture
def left_to_uvicorn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses of answers that went out as two messages."""
    statuses: list[int] = []
    in_two = answering._in_two

    async def spy(send: Send, status: int, fields: Fields, body: bytes) -> None:
        statuses.append(status)
        await in_two(send, status, fields, body)

    monkeypatch.setattr(answering, "_in_two", spy)
    return statuses


def exchange(serving: Serving, requests: bytes) -> bytes:
    """All that the server sends until it closes the connection, which the last request asks for."""
    with serving.send(requests) as connection:
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    return DATE.sub(b"", received)


def both(twofold: tuple[Serving, Twofold], requests: bytes) -> bytes:
    serving, application = twofold
    application.whole = True
    one = exchange(serving, requests)
    application.whole = False
    assert one == exchange(serving, requests)
    return one


@pytest.mark.parametrize("status", [200, 201, 404, 429, 500])
@pytest.mark.parametrize("body", [b"", b"the body", LONG])
def test_usual_answers(
    twofold: tuple[Serving, Twofold], left_to_uvicorn: list[int], status: int, body: bytes
) -> None:
    twofold[1].status = status
    twofold[1].fields, twofold[1].body = sized(
        body, (b"X-Tab", b"a\tb"), (b"x-twice", b"\xe9"), (b"x-twice", b"")
    )
    received = both(twofold, GET + CLOSE)
    assert received.count(b"HTTP/1.1 %d " % status) == 2
    assert received.count(body) >= 2
    assert left_to_uvicorn == [status]  # the one that ends the connection


@pytest.mark.parametrize(
    ("own", "left", "lines"),
    [
        ((b"a", b"b"), [200], b"a: b\r\ncontent-length: 8\r\nx-one: 1\r\nx-two: 2\r\n"),
        ((b"X-One", b"own"), [200] * 2, b"x-one: own\r\ncontent-length: 8\r\nx-two: 2\r\n"),
    ],
)
def test_fields_of_every_answer(
    monkeypatch: pytest.MonkeyPatch,
    left_to_uvicorn: list[int],
    own: tuple[bytes, bytes],
    left: list[int],
    lines: bytes,
) -> None:
    """They are added where the answer has none of that name."""
    application = WithDefaults()
    application.fields, application.body = sized(b"the body", own)
    with serve(application, monkeypatch) as serving:
        received = both((serving, application), GET + CLOSE)
    assert received.count(lines) == 2
    assert left_to_uvicorn == left


@pytest.mark.parametrize("field", [(b"a", b"b\r\nc: d"), (b"a\n", b"b"), (b"a", b"b\0")])
def test_a_field_of_every_answer_is_one_line(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="control character"):
        Defaults([field])


UNUSUAL = {
    "no length": ([(b"a", b"b")], b"the body"),
    "too short": ([(b"content-length", b"9")], b"the body"),
    "too long": ([(b"content-length", b"7")], b"the body"),
    "a length of its own spelling": ([(b"content-length", b"08")], b"the body"),
    "connection: close": sized(b"the body", (b"Connection", b"close")),
    "chunked": ([(b"transfer-encoding", b"chunked")], b"the body"),
    "another line": sized(b"the body", (b"a", b"b\r\nset-cookie: c=d")),
    "a carriage return": sized(b"the body", (b"a", b"b\rc")),
    "a newline in a name": sized(b"the body", (b"a\n", b"b")),
    "NUL": sized(b"the body", (b"a", b"b\0")),
    "DEL": sized(b"the body", (b"a", b"\x7f")),
}


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_unusual_answers_are_uvicorns(
    twofold: tuple[Serving, Twofold], left_to_uvicorn: list[int], unusual: str
) -> None:
    twofold[1].fields, twofold[1].body = UNUSUAL[unusual]
    received = both(twofold, GET + CLOSE)
    assert b"set-cookie" not in received
    assert left_to_uvicorn


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_content(twofold: tuple[Serving, Twofold], status: int) -> None:
    twofold[1].status, twofold[1].fields, twofold[1].body = status, [(b"etag", b'"a"')], b""
    assert both(twofold, GET + CLOSE).count(b"HTTP/1.1") == 2


@pytest.mark.parametrize(
    "unusual",
    [
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_unusual_requests_are_uvicorns(
    twofold: tuple[Serving, Twofold], left_to_uvicorn: list[int], unusual: bytes
) -> None:
    both(twofold, unusual + CLOSE)
    assert len(left_to_uvicorn) == (2 if unusual.startswith(b"HEAD") else 1)


def test_a_body_that_was_announced_is_not_asked_for(twofold: tuple[Serving, Twofold]) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert b"100 Continue" not in both(twofold, post + b"ab" + CLOSE)


def test_a_client_that_does_not_read_holds_up_its_answers(
    twofold: tuple[Serving, Twofold], left_to_uvicorn: list[int]
) -> None:
    """The next answer waits for the room that the one before takes: uvicorn's flow control, in its way."""
    serving, application = twofold
    application.fields, application.body = sized(HUGE)
    with serving.send(3 * GET + CLOSE) as connection:
        serving.wait_until_ended()
        assert not serving.ended.acquire(timeout=0.2)  # the second has not left the application
        received = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    serving.wait_until_ended(3)
    assert received.count(b"HTTP/1.1 200 OK") == 4
    assert received.count(HUGE) == 4


def test_nothing_is_written_to_a_client_that_has_left(twofold: tuple[Serving, Twofold]) -> None:
    serving, application = twofold
    application.fields, application.body = sized(HUGE)
    with serving.send(2 * GET) as connection:
        serving.wait_until_ended()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    serving.wait_until_ended()
    assert not serving.errors
    assert serving.client.get("/", timeout=DEADLINE).status_code == 200


async def started(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send_answer(send, 500, *sized(b"the body"))


def test_an_answer_that_has_begun_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(started, monkeypatch) as serving:
        assert exchange(serving, GET).count(b"HTTP/1.1") == 1
        assert isinstance(serving.errors[0], RuntimeError)


async def listening(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    listener = asyncio.create_task(cast("Coroutine[Any, Any, Message]", receive()))
    await asyncio.sleep(0)
    await send_answer(send, 200, *sized(b"the body"))
    async with asyncio.timeout(DEADLINE):
        assert (await listener)["type"] == "http.disconnect"


async def listening_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send_answer(send, 200, *sized(b"the body"))
    assert (await receive())["type"] == "http.disconnect"


@pytest.mark.parametrize("application", [listening, listening_late])
def test_who_listens_is_told_of_the_end(
    monkeypatch: pytest.MonkeyPatch, left_to_uvicorn: list[int], application: Application
) -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab"
    with serve(application, monkeypatch) as serving:
        received = exchange(serving, post + CLOSE)
        serving.wait_until_ended(2)
    assert not serving.errors
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert received.count(b"100 Continue") == (application is listening)  # who reads the body asks for it
    assert left_to_uvicorn == [200]
