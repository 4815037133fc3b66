"""What an answer tells caches that does not say so itself, and how JSON is spelled, whoever writes it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from ninja import Schema
from ninja.security import APIKeyHeader, HttpBasicAuth, HttpBearer
from pytest_django import Settings

from api.ninja import Api
from ops.asgi.bodies import BodyLimit
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.probes import Probes
from ops.asgi.stock import StockASGIHandler
from ops.asgi.telemetry import Telemetry
from ops.telemetry.health import Health
from tests.ops.asgi.server import Serving, serve

PRIVATE = {"Cache-Control": "private, max-age=60"}


class Bearer(HttpBearer):
    async def authenticate(self, request: HttpRequest, token: str) -> str | None:
        return token if token == "good" else None  # noqa: S105


class Basic(HttpBasicAuth):
    async def authenticate(self, request: HttpRequest, username: str, password: str) -> str | None:
        return username if password == "good" else None  # noqa: S105


class Key(APIKeyHeader):
    param_name = "X-Token"

    async def authenticate(self, request: HttpRequest, key: str | None) -> str | None:
        return key if key == "good" else None


class Inner(Schema):
    a: int


class Outer(Schema):
    inner: list[Inner]


api = Api(urls_namespace="storing")


@api.get("/silent")
async def silent(request: HttpRequest) -> dict[str, int]:
    return {"a": 1}


@api.get("/schema", response=Outer)
async def schema(request: HttpRequest) -> Any:
    return {"inner": [{"a": 1}]}


@api.get("/long")
async def long(request: HttpRequest) -> Any:
    return {"a": 2**64}


@api.get("/headed")
async def headed(request: HttpRequest, response: HttpResponse) -> dict[str, int]:
    response["X-Header"] = "1"
    return {"a": 1}


@api.get("/tagged")
async def tagged(request: HttpRequest, etag: str) -> HttpResponse:
    return HttpResponse("{}", headers={"ETag": etag})


@api.post("/silent")
async def change(request: HttpRequest) -> dict[str, int]:
    return {"a": 1}


@api.get("/says")
async def says(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}", headers={"cache-control": "public, max-age=5"})


@api.get("/me", auth=[Bearer(), Basic()])
async def me(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.auth)  # type: ignore[attr-defined]


@api.get("/me/says", auth=Bearer())
async def me_says(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}", headers=PRIVATE)


@api.get("/key", auth=Key())
async def key(request: HttpRequest) -> HttpResponse:
    return HttpResponse("{}")


@api.get("/missing")
async def missing(request: HttpRequest) -> HttpResponse:
    raise Http404


@api.get("/number")
async def number(request: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse("{}")


@api.get("/fails")
async def fails(request: HttpRequest) -> HttpResponse:
    raise ValueError


async def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.GET.get("content", ""), status=int(request.GET["status"]))


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> Any:
        yield b"a"

    return StreamingHttpResponse(pieces(), status=int(request.GET.get("status", "200")))


urlpatterns = [path("api/", api.urls), path("plain", plain), path("stream", stream)]
handler400 = "api.problems.bad_request"
handler404 = "api.problems.not_found"
handler500 = "api.problems.internal_error"


@pytest.fixture(params=[LeanASGIHandler, StockASGIHandler])
def serving(
    request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serving]:
    settings.ROOT_URLCONF = __name__
    handler: ASGIHandler = request.param()
    with serve(Telemetry(Probes(AllowedHosts(BodyLimit(handler)), Health({}))), monkeypatch) as running:
        yield running


ERRORS = [
    ("GET", "/unknown", 404),
    ("GET", "/api/missing", 404),
    ("POST", "/api/missing", 405),
    ("POST", "/livez", 405),
    ("GET", "/api/number?number=x", 422),
    ("GET", "/api/fails", 500),
    ("GET", "/api/me", 401),
    ("GET", "/api/key", 401),
    ("GET", "/readyz", 503),
    ("GET", "/plain?status=403", 403),
    ("GET", "/plain?status=500", 500),
]


def test_errors_are_not_stored(serving: Serving) -> None:
    for method, target, status in ERRORS:
        answer = serving.client.request(method, target)
        assert (answer.status_code, answer.headers.get("cache-control")) == (status, "no-store"), target
        if not target.startswith(("/plain", "/readyz")):
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.content == orjson.dumps(answer.json())
    answer = serving.client.get("/api/silent", headers={"Host": "other.invalid"})
    assert (answer.status_code, answer.headers["cache-control"]) == (400, "no-store")


def test_an_answer_is_not_stored_unless_it_says_so(serving: Serving) -> None:
    for target in ("/api/silent", "/api/headed", "/stream", "/plain?status=200", "/livez"):
        assert serving.client.get(target).headers["cache-control"] == "no-store", target
    assert serving.client.get("/api/docs").headers["cache-control"] == "public, no-cache"
    assert serving.client.get("/api/says").headers["cache-control"] == "public, max-age=5"
    assert serving.client.get("/api/docs").headers["cache-control"] == "public, no-cache"
    asset = "/api/docs/favicon.svg"
    assert serving.client.get(asset).headers["cache-control"] == "public, max-age=86400"


def test_what_was_authenticated_is_private(serving: Serving) -> None:
    bearer = {"Authorization": "Bearer good"}
    assert serving.client.get("/api/me", headers=bearer).headers["cache-control"] == "private, no-store"
    assert serving.client.get("/api/key", headers={"X-Token": "good"}).headers["cache-control"] == (
        "private, no-store"
    )
    assert (
        serving.client.get("/api/me/says", headers=bearer).headers["cache-control"]
        == (PRIVATE["Cache-Control"])
    )


@pytest.mark.parametrize(
    ("etag", "wanted", "status"),
    [
        ("", '"a"', 412),
        ("", "*", 200),
        ('"a"', '"a"', 200),
        ('"a"', '"b", "a"', 200),
        ('"a"', '"b"', 412),
        ('"a"', 'W/"a"', 412),
        ('W/"a"', 'W/"a"', 412),
        ('"a"', "a", 412),
    ],
)
def test_if_match(serving: Serving, etag: str, wanted: str, status: int) -> None:
    """Where no page cache looks at it; an endpoint without an entity tag has none that matches."""
    target = f"/api/tagged?etag={quote(etag)}" if etag else "/api/silent"
    answer = serving.client.get(target, headers={"If-Match": wanted})
    assert answer.status_code == status
    if status == 412:
        assert answer.json()["code"] == "precondition_failed"
        assert answer.headers["cache-control"] == "no-store"


def test_if_match_leaves_errors_and_other_methods_to_the_view(serving: Serving) -> None:
    wanted = {"If-Match": '"a"'}
    assert serving.client.get("/api/missing", headers=wanted).status_code == 404
    assert serving.client.post("/api/silent", headers=wanted).status_code == 200


def test_a_challenge(serving: Serving) -> None:
    """RFC 9110, section 15.5.2, where the authenticators have a scheme."""
    challenge = serving.client.get("/api/me").headers["www-authenticate"]
    assert challenge == 'Bearer realm="api", Basic realm="api"'
    assert "www-authenticate" not in serving.client.get("/api/key").headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/plain?status=%d", "/plain?status=%d&content=a", "/stream?status=%d"])
@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_content_says_no_length(
    serving: Serving, method: str, target: str, status: int
) -> None:
    """RFC 9110, section 8.6; and what a view sends all the same is not taken for the next answer."""
    asked = f"{method} {target % status} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with serving.send((asked + last).encode()) as connection:
        answers = b""
        while data := connection.recv(65536):
            answers += data
    first, second = answers.split(b"\r\n\r\nHTTP/1.1 200 ")
    assert first.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\ncontent-length:" not in first
    assert b"\r\ntransfer-encoding:" not in first
    assert second.endswith(b'\r\n\r\n{"status":"ok"}')


def test_json_is_spelled_in_one_way(serving: Serving) -> None:
    answers = {
        "/api/silent": b'{"a":1}',
        "/api/headed": b'{"a":1}',
        "/api/schema": b'{"inner":[{"a":1}]}',
        "/api/long": b'{"a":18446744073709551616}',
        "/livez": b'{"status":"ok"}',
    }
    for target, content in answers.items():
        answer = serving.client.get(target)
        assert (answer.content, answer.headers["content-type"]) == (content, "application/json"), target
