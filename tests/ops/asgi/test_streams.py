"""Content that its view reads itself: as it comes, to a limit, and no further than the view wants to."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path
from pytest_django import Settings

from api.ninja import Api
from api.problems import Problem
from ops.asgi import bodies
from ops.asgi.admission import admission
from ops.asgi.bodies import BodyLimit, body_limit, stream_of, streamed_body
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.head import Head
from ops.asgi.stock import StockASGIHandler
from ops.asgi.telemetry import Telemetry
from tests.ops.asgi.server import Serving, serve
from tests.ops.asgi.test_bodies import CHUNK, END, EXPECTS, MIB, head, read_answer, spooled
from tests.ops.asgi.views import DEADLINE, events

CHUNKED = b"Transfer-Encoding: chunked"
api = Api(urls_namespace="streams")


@api.post("/count")
@streamed_body
async def count(request: HttpRequest) -> HttpResponse:
    size = len(request.body)
    async for piece in stream_of(request):
        events["first"].set()
        size += len(piece)
    return HttpResponse(str(size))


@api.put("/count")
@streamed_body
@body_limit(MIB)
async def count_some(request: HttpRequest) -> HttpResponse:
    return await count(request)


@api.get("/count")
@streamed_body
async def count_nothing(request: HttpRequest) -> HttpResponse:
    return await count(request)


@api.post("/unread")
@streamed_body
async def unread(request: HttpRequest) -> HttpResponse:
    raise Problem(403, "not for you")


@api.post("/endless")
@streamed_body
async def endless(request: HttpRequest) -> HttpResponse:
    """Reads all, and then goes on to work."""
    async for _ in stream_of(request):
        pass
    events["read"].set()
    await asyncio.sleep(DEADLINE)
    return HttpResponse()


@streamed_body
async def plain(request: HttpRequest) -> HttpResponse:
    return await count(request)


urlpatterns = [path("api/", api.urls), path("plain", plain)]


@pytest.fixture(params=[LeanASGIHandler, StockASGIHandler])
def serving(
    request: pytest.FixtureRequest, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serving]:
    settings.ROOT_URLCONF = __name__
    settings.IMPORT_LIMIT = 4 * MIB
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(bodies, "LINGER_SECONDS", 0.1)
    events.clear()
    with serve(Telemetry(Head(BodyLimit(request.param()))), monkeypatch) as running:
        yield running


def chunks(size: int) -> Iterator[bytes]:
    yield from (b"x" * 50_000 for _ in range(size // 50_000))
    yield b"y" * (size % 50_000)


def test_all_of_it(serving: Serving) -> None:
    """To its limit, of any length and none; and the connection serves the next request."""
    for target in ("/api/count", "/plain"):
        assert serving.client.post(target, content=b"x" * 4 * MIB).text == str(4 * MIB)
        assert serving.client.post(target, content=chunks(4 * MIB)).text == str(4 * MIB)
        assert serving.client.post(target, content=b"x").text == "1"
        assert serving.client.post(target).text == "0"
    assert serving.client.put("/api/count", content=chunks(MIB)).text == str(MIB)
    assert serving.client.request("GET", "/api/count", content=b"abc").text == "0"
    assert not serving.errors


def test_the_view_reads_before_the_client_has_sent_all(serving: Serving, tmp_path: Path) -> None:
    with serving.send(head("POST", "/api/count", CHUNKED, EXPECTS)) as connection:
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(CHUNK)
        assert events["first"].wait(DEADLINE)
        assert spooled(tmp_path) == 0
        until = time.monotonic() + DEADLINE
        while admission.active:  # while it waits for the client, it takes no place
            assert time.monotonic() < until
        connection.sendall(CHUNK + END)
        line, fields, content = read_answer(connection)
        assert (line[:12], content) == (b"HTTP/1.1 200", str(2 * 0x10000).encode())
        assert "connection" not in fields
        assert admission.active == 0
        connection.sendall(head("POST", "/api/count", b"Content-Length: 3") + b"abc")
        assert read_answer(connection)[2] == b"3"


def test_too_much_is_refused_in_the_middle(serving: Serving) -> None:
    with serving.send(head("PUT", "/api/count", CHUNKED)) as connection:
        connection.sendall(CHUNK * 17)
        line, fields, _ = read_answer(connection)
        assert line.startswith(b"HTTP/1.1 413 ")
        assert fields["content-type"] == "application/problem+json"
        assert fields["connection"] == "close"
        assert connection.recv(1) == b""
    with serving.send(head("POST", "/plain", b"Content-Length: %d" % (4 * MIB + 1), EXPECTS)) as connection:
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 413 ")
    with serving.send(head("POST", "/plain", CHUNKED)) as connection:
        connection.sendall(CHUNK * 65)
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 413 ")
    assert not serving.errors


def test_an_answer_before_the_end_closes(serving: Serving) -> None:
    """A client that expects 100 Continue sends nothing of what is refused."""
    for fields in ((CHUNKED, EXPECTS), (b"Content-Length: 3000000", EXPECTS)):
        with serving.send(head("POST", "/api/unread", *fields)) as connection:
            line, answered, _ = read_answer(connection)
            assert line.startswith(b"HTTP/1.1 403 ")
            assert answered["connection"] == "close"
            assert connection.recv(1) == b""
    assert not serving.errors


def test_a_silent_client(serving: Serving, settings: Settings) -> None:
    settings.STREAM_PATIENCE_SECONDS = 0.1
    for target in ("/api/count", "/plain"):
        with serving.send(head("POST", target, CHUNKED) + CHUNK) as connection:
            line, fields, content = read_answer(connection)
            assert line.startswith(b"HTTP/1.1 408 ")
            assert b'"request_timeout"' in content
            assert fields["connection"] == "close"
    assert not serving.errors


@pytest.mark.parametrize("sent", [CHUNK, CHUNK + END], ids=["in the middle", "after its content"])
def test_a_client_that_leaves(serving: Serving, sent: bytes) -> None:
    """Cancels the view, silently, wherever it is."""
    target, event = ("/api/endless", "read") if sent.endswith(END) else ("/api/count", "first")
    connection = serving.send(head("POST", target, CHUNKED) + sent)
    assert events[event].wait(DEADLINE)
    connection.close()
    serving.wait_until_ended()
    assert not serving.errors
