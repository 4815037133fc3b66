"""Pages for the tests of the wire: cached ones of every kind, and answers of applications that break the rules."""

import asyncio
import json
import threading
from typing import Any
from urllib.parse import parse_qsl, urlencode

from django.http import HttpRequest, HttpResponse
from django.urls import path

from api.cache.policy import Endpoint, Policy
from api.problems import Problem
from ops.asgi.disconnect import HAS_LEFT
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.types import Message, Receive, Scope, Send

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
cancelled = threading.Event()


class Pages(Endpoint):
    def canonical_query(self, query: str) -> str:
        """As api/reads/parameters.py does: one canonical text, and unknown names are refused."""
        pairs = parse_qsl(query, keep_blank_values=True)
        if any(name not in ("a", "b") for name, _ in pairs):
            raise Problem(422, "Unknown.")
        return urlencode(sorted(pairs))


POLICY = Policy("wire-test", Pages("wire-test", ()), fresh=7200, stale=60, depends_on=())


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
    try:
        await asyncio.to_thread(released.wait, 10)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return HttpResponse(b"slow", headers={"Content-Length": "4"})


django = LeanASGIHandler()
urlpatterns: list[Any] = [path("page/<name>", page), path("slow", slow)]


START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]}
END: Message = {"type": "http.response.body", "body": b"abc"}
ODD: dict[str, list[Message]] = {
    "early": [START, END],  # before the request's content is there
    "late": [START, END],  # and reads on
    "close": [{**START, "headers": [(b"content-length", b"3"), (b"connection", b"close")]}, END],
    "chunked": [{**START, "headers": [(b"x-test", b"1")]}, {**END, "more_body": True}, END],
    "short": [START, {**END, "body": b"ab"}],
    "long": [START, {**END, "body": b"abcd"}],
    "partial": [START],
    "nothing": [],
    "raise": [],
    "cut": [{**START, "headers": []}, {**END, "more_body": True}],
    "held": [{**START, "headers": []}],
    "split": [{**START, "headers": [(b"x-test", b"1\r\nx-split: 1")]}],
    "twice": [START, START],
    "stream": [{**START, "headers": []}, *[{**END, "body": bytes(2**20), "more_body": True}] * 32, END],
    "unsized": [{**START, "headers": []}, {**END, "body": bytes(2**25)}],
    "on": [START, END, END],
}


async def zoo(scope: Scope, receive: Receive, send: Send) -> None:
    """Below /zoo an application that answers as its path says; /zoo/scope shows what uvicorn has given to it."""
    top, *rest = scope["path"].removeprefix("/").split("/")
    if top != "zoo":
        await django(scope, receive, send)
    elif rest == ["scope"]:
        await _show(scope, receive, send)
    elif rest in (["length"], ["waiting"]):
        if rest == ["waiting"]:
            await _wait()
        await _send(send, b"%d" % len(await _read(receive)))
    elif rest == ["much"]:
        await _send(send, bytes(2**25))
    else:
        for message in ODD[rest[0]]:
            await send(message)
        if rest == ["held"]:
            await _wait()
        if rest in (["raise"], ["cut"], ["held"]):
            raise ValueError
        if rest == ["late"]:
            assert (await receive())["type"] == "http.disconnect"


async def _wait() -> None:
    started.set()
    await asyncio.to_thread(released.wait, 10)


async def _show(scope: Scope, receive: Receive, send: Send) -> None:
    peers = {"client": scope["client"][0], "server": scope["server"][0]}  # without the ports
    scope = {name: value for name, value in scope.items() if name != HAS_LEFT}  # a function of the protocol's
    shown = repr(sorted({**scope, **peers, "body": await _read(receive)}.items())).encode()
    await _send(send, shown)


async def _send(send: Send, body: bytes) -> None:
    await send({**START, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({**END, "body": body})


async def _read(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body
