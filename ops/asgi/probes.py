"""Answers the probes /livez, /readyz and /healthz before the layers that check and limit other requests.

One of these layers would refuse a probe for its Host header, which has an address. /livez asks no other service,
since a restart mends no database.
"""

from collections.abc import Awaitable
from typing import Any

import orjson
from asgiref.sync import markcoroutinefunction

from ops.asgi.answering import send_answer
from ops.asgi.hits import always
from ops.asgi.problems import refuse
from ops.asgi.root_path import path_info
from ops.asgi.types import Application, Receive, Scope, Send
from ops.telemetry.health import Health
from ops.telemetry.readiness import readiness
from ops.telemetry.stopwatch import current

PROBES = frozenset(("/livez", "/readyz", "/healthz"))
METHODS = ("GET", "HEAD", "OPTIONS")  # HAProxy's `option httpchk` sends OPTIONS by default
# Targets that are answered as /readyz if the method is OPTIONS: that of HAProxy, and that for the server as a whole
# (RFC 9110, 9.3.7).
PINGS = frozenset(("/", "*"))


class Probes:
    def __init__(self, application: Application, health: Health) -> None:
        self.application = application
        self._health = health

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.application(scope, receive, send)
        path = path_info(scope)
        if path in PINGS and scope["method"] == "OPTIONS":
            is_preflight = any(name == b"origin" for name, _ in scope["headers"])  # a browser sent it
            path = path if is_preflight else "/readyz"
        if path not in PROBES:
            return self.application(scope, receive, send)
        if watch := current.get():
            watch.route = path
        if scope["method"] not in METHODS:
            allow = [(b"allow", ", ".join(METHODS).encode())]
            return refuse(send, 405, "method_not_allowed", "A probe answers GET, HEAD and OPTIONS.", allow)
        return self._send_report(path, send)

    async def _send_report(self, path: str, send: Send) -> None:
        report: dict[str, Any] = {"status": "ok"}
        if path == "/readyz":
            report = {"status": readiness.state}
        elif path == "/healthz":
            report = await self._health.report()
        body = orjson.dumps(report)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send_answer(send, 200 if report["status"] in ("ok", "ready") else 503, headers, body)

    admits = always
