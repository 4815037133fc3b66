"""Pages for the tests of the wire: cached ones of every kind, and answers of applications that break the rules."""

import asyncio
import json
import threading
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.http import HttpRequest, HttpResponse
from django.urls import path

from api.cache.policy import Policy
from api.problems import Problem
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.protocol import Application, Receive, Scope, Send

ITEM = {"name": "a thing", "price": "12.50", "note": "é"}
BODIES: dict[str, tuple[str, bytes]] = {
    "list": ("application/json", json.dumps([ITEM] * 30).encode()),
    "large": ("application/json", json.dumps([ITEM] * 300).encode()),  # 16 kB
    "dated": ("application/json", json.dumps([ITEM] * 25).encode()),
    "small": ("text/plain", b"less than is worth a coding"),
    "empty": ("text/plain", b""),
    "image": ("image/png", bytes(range(256)) * 8),
    "café": ("text/plain", b"a name that is spelled with percent signs"),
}
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"

released = threading.Event()  # what /slow waits for
started = threading.Event()


def spell(query: str) -> str:
    """As api/query.py does: one spelling, and what is unknown is refused."""
    pairs = parse_qsl(query, keep_blank_values=True)
    if any(name not in ("a", "b") for name, _ in pairs):
        raise Problem(422, "Unknown.")
    return urlencode(sorted(pairs))


POLICY = Policy("wire-test", key=spell, fresh=7200, stale=60, depends_on=())


async def page(request: HttpRequest, name: str) -> HttpResponse:
    if name not in BODIES or request.method != "GET":
        return HttpResponse(b"other", status=404 if name not in BODIES else 405, content_type="text/plain")
    kind, body = BODIES[name]
    answer = HttpResponse(body, content_type=kind, headers={"Content-Length": str(len(body)), "X-Page": "é"})
    if name == "dated":
        answer["Last-Modified"] = DATE
    return answer


page.page_policy = POLICY  # type: ignore[attr-defined]  # as `cached` does, which would register it for good


async def slow(request: HttpRequest) -> HttpResponse:
    started.set()
    await asyncio.to_thread(released.wait, 10)
    return HttpResponse(b"slow", headers={"Content-Length": "4"})


urlpatterns: list[Any] = [path("page/<name>", page), path("slow", slow)]


class Zoo:
    """Below /zoo, applications that answer in odd ways; /zoo/scope shows what uvicorn gave to it."""

    def __init__(self) -> None:
        self.django: Application = LeanASGIHandler()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["path"].removeprefix("/zoo/")
        if kind == scope["path"]:
            await self.django(scope, receive, send)
            return
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]}
        end = {"type": "http.response.body", "body": b"abc"}
        match kind:
            case "scope":
                body = await _read(receive)
                shown = {**scope, "client": scope["client"][0], "server": scope["server"][0], "body": body}
                text = repr(sorted(shown.items())).encode()
                start["headers"] = [(b"content-length", b"%d" % len(text))]
                await send(start)
                await send({**end, "body": text})
            case "early":  # answers before the body is there
                await send(start)
                await send(end)
            case "late":  # reads on after its answer
                await send(start)
                await send(end)
                assert (await receive())["type"] == "http.disconnect"
            case "close":
                await send({**start, "headers": [(b"content-length", b"3"), (b"connection", b"close")]})
                await send(end)
            case "chunked":
                await send({**start, "headers": iter([(b"x-test", b"1")])})
                await send({**end, "more_body": True})
                await send(end)
            case "short" | "long":
                await send(start)
                await send({**end, "body": b"ab" if kind == "short" else b"abcd"})
            case "partial":
                await send(start)
            case "raise":
                raise ValueError
            case "split":
                await send({**start, "headers": [(b"x-test", b"1\r\nx-split: 1")]})


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
