"""What is refused before its content is read, what is read, and what neither may leave behind."""

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import markcoroutinefunction
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpRequest, HttpResponse
from django.urls import ResolverMatch, URLResolver, path
from ninja import File, UploadedFile
from pytest_django import Settings

from api.ninja import Api
from api.problems import safe_methods
from ops.asgi import bodies, routes
from ops.asgi.bodies import BodyLimit, body_limit
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.head import Head
from ops.asgi.stock import StockASGIHandler
from ops.asgi.telemetry import Telemetry
from tests.ops.asgi.server import Serving, serve
from tests.ops.asgi.views import events

MIB = 1024 * 1024
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
END = b"0\r\n\r\n"
EXPECTS = b"Expect: 100-continue"

api = Api(urls_namespace="bodies")


@api.get("/items")
@api.post("/items")
async def items(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@api.put("/items")
@body_limit(4 * MIB)
async def put_items(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@api.delete("/items")
async def delete_items(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@api.get("/read")
async def read(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@api.post("/files")
@body_limit(64 * MIB)
def files(request: HttpRequest, file: File[UploadedFile]) -> HttpResponse:
    return HttpResponse(f"{file.size} {type(file.file).__name__}")


async def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@body_limit(10)
async def small(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


@safe_methods
def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


async def greedy(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.POST)))


urlpatterns = [
    path("api/", api.urls),
    *(path(view.__name__, view) for view in (plain, small, page, greedy)),
]
handler400 = "api.problems.bad_request"


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[Path]:
    """The directory of temporary files. They have no name there, but descriptors, which are looked at in between."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)
    yield tmp_path
    assert not [*tmp_path.iterdir()]


@pytest.fixture(params=[LeanASGIHandler, StockASGIHandler])
def serving(
    request: pytest.FixtureRequest, spool: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serving]:
    settings.ROOT_URLCONF = __name__
    monkeypatch.setattr(bodies, "LINGER_SECONDS", 0.1)
    with serve(Telemetry(Head(BodyLimit(request.param()))), monkeypatch) as running:
        yield running


def spooled(directory: Path) -> int:
    """Bytes on disk in files that are open below `directory`, with a name or without one."""
    size = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith(str(directory)):
                size += os.stat(link).st_size  # noqa: PTH116  of the open file: the link's target has no name
    return size


def head(method: str, target: str, *fields: bytes) -> bytes:
    return b"\r\n".join([f"{method} {target} HTTP/1.1".encode(), b"Host: localhost", *fields, b"", b""])


def read_answer(connection: socket.socket) -> tuple[bytes, dict[str, str], bytes]:
    """Status line, fields and content."""
    with connection.makefile("rb") as answer:
        status = answer.readline()
        fields = dict(line.decode().strip().lower().split(": ") for line in iter(answer.readline, b"\r\n"))
        return status, fields, answer.read(int(fields["content-length"]))


REFUSED = [
    ("POST", "/api/read", 405),
    ("PUT", "/api/read", 405),
    ("DELETE", "/api/read", 405),
    ("OPTIONS", "/api/items", 405),
    ("PROPFIND", "/api/items", 405),
    ("POST", "/page", 405),
    ("POST", "/api/docs", 405),
    ("POST", "/api/openapi.json", 405),
    ("POST", "/unknown", 404),
    ("GET", "/unknown", 404),
    ("POST", "/api/unknown", 404),
]
CODES = {404: "not_found", 405: "method_not_allowed", 413: "content_too_large"}


def check(answer: tuple[bytes, dict[str, str], bytes], status: int) -> None:
    line, fields, content = answer
    assert line.startswith(b"HTTP/1.1 %d " % status), line
    assert fields["content-type"] == "application/problem+json"
    assert fields["cache-control"] == "no-store"
    assert fields["connection"] == "close"
    assert (status == 405) == ("allow" in fields)
    problem = json.loads(content)
    assert (problem["status"], problem["code"]) == (status, CODES[status])


@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked", b"Content-Length: 300000000"])
def test_what_no_route_takes_is_refused_unread(serving: Serving, field: bytes) -> None:
    """At the header: nothing of the content has been sent when the answer is here."""
    for method, target, status in REFUSED:
        with serving.send(head(method, target, field, EXPECTS)) as connection:
            check(read_answer(connection), status)
    assert not serving.errors


def test_a_length_beyond_the_limit_is_refused_at_the_header(serving: Serving) -> None:
    for method, target, length in (
        ("POST", "/api/items", MIB + 1),
        ("PUT", "/api/items", 4 * MIB + 1),
        ("DELETE", "/api/items", MIB + 1),
        ("GET", "/api/items", 100 * MIB),
        ("GET", "/page", 100 * MIB),
        ("POST", "/plain", MIB + 1),
        ("POST", "/small", 11),
        ("POST", "/api/items", 10**18),
        ("POST", "/api/files", 64 * MIB + 1),
    ):
        with serving.send(head(method, target, b"Content-Length: %d" % length, EXPECTS)) as connection:
            check(read_answer(connection), 413)
    assert not serving.errors


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_chunks_beyond_the_limit_are_refused_at_the_byte(serving: Serving, spool: Path, method: str) -> None:
    """The client reads the answer although it goes on to send, and has not got the whole content rid of."""
    refused = threading.Event()
    with serving.send(head(method, "/api/items", b"Transfer-Encoding: chunked")) as connection:

        def send() -> None:
            with suppress(OSError):
                while not refused.is_set():
                    connection.sendall(CHUNK)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            check(read_answer(connection), 413)
            assert spooled(spool) == 0
        finally:
            refused.set()
            with suppress(OSError):  # the server has closed, or else the sender waits for it to read
                connection.shutdown(socket.SHUT_RDWR)
            sender.join()
    assert not serving.errors


def test_the_route_is_found_once(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """By this layer, for the lean handler, too."""
    found: list[str] = []
    resolve = routes.resolve

    def counted(resolver: URLResolver, path: str) -> ResolverMatch:
        found.append(path)
        return resolve(resolver, path)

    monkeypatch.setattr(routes, "resolve", counted)
    assert serving.client.post("/api/items", content=b"abc").text == "3"
    assert found == ["/api/items"]


def test_exactly_the_limit(serving: Serving) -> None:
    def pieces(size: int) -> Iterator[bytes]:
        yield from (b"x" * MIB for _ in range(size // MIB))
        yield b"y" * (size % MIB)

    assert serving.client.post("/api/items", content=b"x" * MIB).text == str(MIB)
    assert serving.client.post("/api/items", content=pieces(MIB)).text == str(MIB)
    assert serving.client.put("/api/items", content=b"x" * 4 * MIB).text == str(4 * MIB)
    assert serving.client.put("/api/items", content=pieces(4 * MIB)).text == str(4 * MIB)
    assert serving.client.request("DELETE", "/api/items", content=b"x" * 100).text == "100"
    assert serving.client.post("/small", content=b"x" * 10).text == "10"


def test_content_of_a_get_is_ignored(serving: Serving, spool: Path) -> None:
    """And its connection serves the next request."""
    with serving.send(head("GET", "/api/items", b"Content-Length: 5") + b"abcde") as connection:
        connection.sendall(head("HEAD", "/api/items", b"Transfer-Encoding: chunked") + CHUNK + END)
        connection.sendall(head("POST", "/api/items", b"Content-Length: 3", b"Connection: close") + b"abc")
        answers = connection.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    contents = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 200 OK")[1:]]
    assert contents == [b"0", b"", b"3"]
    assert spooled(spool) == 0


def test_expectation_of_what_is_taken_gets_its_100(serving: Serving) -> None:
    fields = b"Content-Length: 3", EXPECTS, b"Connection: close"
    with serving.send(head("POST", "/api/items", *fields)) as connection:
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"abc")
        assert read_answer(connection)[2] == b"3"


def test_an_upload(serving: Serving, spool: Path) -> None:
    """To the limit of its route, on disk where it is large, and in no other way than Django's."""
    answer = serving.client.post("/api/files", files={"file": b"x" * 10 * MIB})
    assert answer.text.split()[0] == str(10 * MIB)
    serving.wait_until_ended()
    assert serving.client.post("/api/files", files={"file": b"x" * 65 * MIB}).status_code == 413
    assert spooled(spool) == 0


def test_too_much_for_memory(serving: Serving, settings: Settings) -> None:
    """Django's own limit, within what the route takes: of Ninja's views, of plain ones, and under DEBUG."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 3
    form = {"a": "x" * 1000}
    multipart = {"files": {"a": (None, "x" * 1000)}}
    for debug in (False, True):
        settings.DEBUG = debug
        for target, content in (
            ("/api/items", {"content": b"abcd"}),
            ("/plain", {"content": b"abcd"}),
            ("/greedy", {"data": form}),
            ("/greedy", multipart),
            ("/api/files", multipart),
        ):
            answer = serving.client.post(target, **content)
            assert answer.status_code == 413, (target, answer.text)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "content_too_large"
            assert answer.headers["Cache-Control"] == "no-store"


def test_a_client_that_leaves_in_the_middle(serving: Serving, spool: Path) -> None:
    sent = head("PUT", "/api/items", b"Content-Length: %d" % (4 * MIB)) + b"x" * 3 * MIB
    for _ in range(3):
        serving.send(sent).close()
        serving.wait_until_ended()
    assert spooled(spool) == 0
    assert not serving.errors


def test_a_refused_client_that_neither_reads_nor_leaves(serving: Serving) -> None:
    """Is let go after a while, with the end of the request."""
    began = time.monotonic()
    with serving.send(head("POST", "/unknown", b"Transfer-Encoding: chunked")) as connection:
        serving.wait_until_ended()
        assert time.monotonic() - began < 2
        check(read_answer(connection), 404)


def test_memory_is_bounded(serving: Serving) -> None:
    """16 clients that send 20 MiB each, of which a route takes none or one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def send(target: str) -> None:
        with (
            suppress(OSError),
            serving.send(head("POST", target, b"Transfer-Encoding: chunked")) as connection,
        ):
            for _ in range(20 * 16):
                connection.sendall(CHUNK)

    senders = [
        threading.Thread(target=send, args=[target])
        for target in ("/unknown", "/api/items")
        for _ in range(8)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    serving.wait_until_ended(16)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 80 * 1024


def test_a_middleware_may_answer_what_no_route_does(
    spool: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [f"{__name__}.Elsewhere"]
    with serve(BodyLimit(LeanASGIHandler()), monkeypatch) as serving:
        assert serving.client.post("/elsewhere", content=b"abc").text == "3"
        assert serving.client.post("/elsewhere", content=b"x" * (MIB + 1)).status_code == 413


class Elsewhere:
    sync_capable, async_capable = False, True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        if request.path == "/elsewhere":
            return HttpResponse(str(len(request.body)))
        return await self.get_response(request)


def test_djangos_handler_spools_what_no_route_takes(
    spool: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the layer: the tests above see what they look for."""
    settings.ROOT_URLCONF = __name__
    with (
        serve(ASGIHandler(), monkeypatch) as serving,
        serving.send(head("POST", "/unknown", b"Content-Length: %d" % (4 * MIB))) as connection,
    ):
        connection.sendall(b"x" * (4 * MIB - 1))
        deadline = time.monotonic() + 10
        while not spooled(spool):
            assert time.monotonic() < deadline
            events["never"].wait(0.01)
