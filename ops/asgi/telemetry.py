"""Times, names, counts and logs every request: the outermost layer, pure ASGI.

The three headers go out with the answer. The metrics get what only its end tells: the whole response stage, and the
status of a request whose client has left. What a request pays for it: docs/lab.md.
"""

import random
from dataclasses import asdict
from typing import Any

import structlog
from django.conf import settings

from ops.asgi.answering import answer
from ops.asgi.problems import refuse
from ops.asgi.protocol import Application, Fields, Message, Receive, Scope, Send
from ops.instruments import request_id, requests
from ops.instruments.headers import headers
from ops.instruments.stopwatch import STAGES, Stopwatch, current

logger = structlog.get_logger("ops.request")
access = structlog.get_logger("ops.access")

CLIENT_LEFT = 499  # nginx's word for a request whose client did not wait for the answer
SERVER_ERROR = 500
LONGEST_PATH = 200  # characters of it in a log


class Telemetry:
    def __init__(self, application: Application) -> None:
        self.application = application
        budget = settings.LATENCY_BUDGET
        self.total = budget.total
        limits = asdict(budget)
        self.limits = [limits.get(stage.name, budget.total) for stage in STAGES]
        self.sample = settings.ACCESS_LOG

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        exchange = Exchange(self, scope, send)
        current.set(exchange)
        requests.in_flight.value += 1
        try:
            await self.application(scope, receive, exchange.send)
        except Exception:
            if exchange.status:  # half an answer is out: the server closes the connection, and logs the error
                exchange.status = SERVER_ERROR
                raise
            logger.exception("an error that no layer answered")
            await refuse(
                exchange.send, 500, "internal_error", "The service failed; the error has been logged."
            )
        finally:
            requests.in_flight.value -= 1
            exchange.finish()


class Exchange(Stopwatch):
    """One request and its answer: the watch of the one, the `send` of the other."""

    __slots__ = ("_finished", "_scope", "_send", "_telemetry", "status")

    def __init__(self, telemetry: Telemetry, scope: Scope, send: Send) -> None:
        super().__init__(request_id.of(scope["headers"]))
        self._telemetry, self._scope, self._send = telemetry, scope, send
        self._finished = False
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({**message, "headers": [*message.get("headers", ()), *headers(self)]})
            return
        await self._send(message)
        if not message.get("more_body"):
            self.finish()

    async def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """Both messages at once: see ops/asgi/answering.py."""
        self.status = status
        await answer(self._send, status, [*fields, *headers(self)], body)
        self.finish()

    def finish(self) -> None:
        """File the request, once: after its last byte, or when it has ended without one."""
        if self._finished:
            return
        self._finished = True
        telemetry = self._telemetry
        seconds = self.lap()
        status = self.status or CLIENT_LEFT
        answers = requests.answers(requests.route(self.route), self._scope["method"])
        requests.record_stages(answers, status, seconds, self)
        if status >= SERVER_ERROR:
            logger.error("request failed", **self._line(status, seconds))
        elif seconds > telemetry.total:
            limits = zip(STAGES, self.seconds, telemetry.limits, strict=True)
            over = [stage.name for stage, spent, limit in limits if spent > limit]
            logger.warning("request over budget", **self._line(status, seconds), over=over)
        if telemetry.sample and random.random() < telemetry.sample:  # noqa: S311  a sample needs no secrecy
            access.info("request", **self._line(status, seconds))

    def _line(self, status: int, seconds: float) -> dict[str, Any]:
        """Without the query string, in which a client may have put what is nobody's business."""
        return {
            "request_id": self.request_id.decode(),
            "method": self._scope["method"],
            "route": requests.route(self.route).template,
            "path": self._scope["path"][:LONGEST_PATH],
            "status": status,
            **({"code": self.code} if self.code else {}),
            "ms": round(seconds * 1e3, 3),
            "stages": {
                stage.name: round(spent * 1e3, 3)
                for stage, spent in zip(STAGES, self.seconds, strict=True)
                if spent
            },
        }
