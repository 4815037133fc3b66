"""/livez, /readyz and /healthz: answered before anything that a request needs, the Host header included.

A probe comes with an address as its host. Liveness touches nothing: a restart mends no database.
"""

from collections.abc import Awaitable
from typing import Any

import orjson

from ops.asgi.answering import answer
from ops.asgi.problems import refuse
from ops.asgi.protocol import Application, Receive, Scope, Send
from ops.instruments.health import health
from ops.instruments.readiness import readiness
from ops.instruments.stopwatch import current

METHODS = ("GET", "HEAD")


class Probes:
    def __init__(self, application: Application) -> None:
        self.application = application
        self.probes = {"/livez": _live, "/readyz": _ready, "/healthz": _healthy}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["path"] not in self.probes:
            return self.application(scope, receive, send)
        if watch := current.get():
            watch.route = scope["path"]
        if scope["method"] not in METHODS:
            allow = [(b"allow", ", ".join(METHODS).encode())]
            return refuse(send, 405, "method_not_allowed", "A probe answers GET and HEAD.", allow)
        return self.probes[scope["path"]](send)


async def _live(send: Send) -> None:
    await _answer(send, 200, {"status": "ok"})


async def _ready(send: Send) -> None:
    state = readiness.state
    await _answer(send, 200 if state == "ready" else 503, {"status": state})


async def _healthy(send: Send) -> None:
    report = await health.report()
    await _answer(send, 200 if report["status"] == "ok" else 503, report)


async def _answer(send: Send, status: int, report: dict[str, Any]) -> None:
    body = orjson.dumps(report)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await answer(send, status, headers, body)
