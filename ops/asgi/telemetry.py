"""Times and counts each request, gives it an id, and logs those that failed or were slow, and a sample; in pure ASGI.

Header fields give the time until they are sent. Metrics have the whole time, also for requests that clients left
before an answer. config/asgi.py has the few layers outside of this one, docs/lab.md the cost of a request.
"""

import random
from dataclasses import asdict
from secrets import compare_digest
from time import monotonic, perf_counter
from typing import Any

import structlog
from django.conf import settings

from ops.asgi.answering import send_answer
from ops.asgi.hits import Hit, always
from ops.asgi.problems import refuse
from ops.asgi.types import REFUSED, Application, Fields, Message, Receive, Scope, Send
from ops.telemetry import request_id, request_stats
from ops.telemetry.headers import FIELD_NAMES, headers, hit_block
from ops.telemetry.logs import has_room
from ops.telemetry.readiness import readiness
from ops.telemetry.stopwatch import STAGES, Stopwatch, current

LOGGER = "ops.request"
logger = structlog.get_logger(LOGGER)
access = structlog.get_logger("ops.access")

FAILED, OVER = "request failed", "request over budget"
CLIENT_LEFT = 499  # nginx's status for a client that did not wait for the answer
SERVER_ERROR = 500
KEY_FIELD = b"x-server-timing-key"
MAX_PATH_CHARACTERS = 200  # of a path in a log line


class Telemetry:
    def __init__(self, application: Application) -> None:
        self.application = application
        budget = settings.LATENCY_BUDGET
        self.total = budget.total
        limits = asdict(budget)
        self.limits = [limits.get(stage.name, budget.total) for stage in STAGES]
        self.access_log_share = settings.ACCESS_LOG
        self.shows_stages = settings.SERVER_TIMING == "all"
        self._key = settings.SERVER_TIMING_KEY.encode()
        self._hit_durations: dict[tuple[str, str], request_stats.Durations] = {}  # by route and method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        exchange = Exchange(self, scope, send)
        current.set(exchange)
        request_stats.in_flight.value += 1
        try:
            await self.application(scope, receive, exchange.send)
        except Exception:
            if exchange.status:  # an answer has begun: the server closes the connection, and logs the error
                exchange.status = SERVER_ERROR
                raise
            logger.exception("an error that no layer answered")
            await refuse(
                exchange.send, 500, "internal_error", "The service failed; the error has been logged."
            )
        finally:
            request_stats.in_flight.value -= 1
            exchange.finish()

    def is_known(self, fields: Fields) -> bool:
        """Whether a request with these header fields has the key to see Server-Timing, settings.SERVER_TIMING_KEY."""
        return bool(self._key) and any(
            name == KEY_FIELD and compare_digest(value, self._key) for name, value in fields
        )

    admits = always

    field_names = FIELD_NAMES

    def fields(self, hit: Hit) -> bytes:
        hit.seconds = perf_counter() - hit.began
        stages = self.shows_stages or self.is_known(hit.headers)
        return hit_block(request_id.of(hit.headers), hit.seconds, stages=stages)

    def sent(self, hit: Hit) -> None:
        """Record the duration of a hit in the metrics."""
        durations = self._hit_durations.get((hit.route, hit.method))
        if durations is None:
            durations = request_stats.durations(request_stats.route(hit.route), hit.method)
            self._hit_durations[hit.route, hit.method] = durations
        request_stats.record(durations, hit.status, hit.seconds)


class Exchange(Stopwatch):
    """The stopwatch of a request, and the `send` for its answer."""

    __slots__ = ("_finished", "_is_whole", "_own_seconds", "_scope", "_send", "_telemetry", "status")

    def __init__(self, telemetry: Telemetry, scope: Scope, send: Send) -> None:
        super().__init__(request_id.of(scope["headers"]))
        self._telemetry, self._scope, self._send = telemetry, scope, send
        self._finished = False
        self._is_whole = (
            True  # the answer has a Content-Length, so it was made before its first piece was sent
        )
        # Seconds until the first piece of an answer in pieces, 0 if that has no Content-Length: its client sets the
        # pace of the rest. None for an answer in one piece.
        self._own_seconds: float | None = None
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, fields = message["status"], message.get("headers", ())
            self._is_whole = any(name.lower() == b"content-length" for name, _ in fields)
            await self._send({**message, "headers": [*fields, *self._headers()]})
            return
        more = message.get("more_body")
        if more and self._own_seconds is None:
            self._own_seconds = self.lap() if self._is_whole else 0.0
        await self._send(message)
        if not more:
            self.finish()

    async def send_answer(self, status: int, fields: Fields, body: bytes) -> None:
        """Send a whole answer in one piece: see ops/asgi/answering.py."""
        self.status = status
        await send_answer(self._send, status, [*fields, *self._headers()], body)
        self.finish()

    def _headers(self) -> tuple[tuple[bytes, bytes], ...]:
        telemetry = self._telemetry
        stages = telemetry.shows_stages or telemetry.is_known(self._scope["headers"])
        return headers(self, stages=stages)

    @property
    def method(self) -> str:
        return str(self._scope["method"])

    def passed_on(self) -> list[tuple[str, str]]:
        return [*super().passed_on(), *request_id.trace_of(self._scope["headers"])]

    def finish(self) -> None:
        """Record the request, once: after the last byte of its answer, or when it has ended without an answer."""
        if self._finished:
            return
        self._finished = True
        telemetry = self._telemetry
        seconds = self.lap()
        status = self.status or self._scope.get("state", {}).get(REFUSED, CLIENT_LEFT)
        durations = request_stats.durations(request_stats.route(self.route), self._scope["method"])
        request_stats.record_stages(durations, status, seconds, self)
        if status >= SERVER_ERROR:
            if self._has_room(FAILED, status):
                logger.error(FAILED, **self._line(status, seconds))
        elif (
            (seconds if self._own_seconds is None else self._own_seconds) > telemetry.total
            and monotonic() >= readiness.warm_at
            and self._has_room(OVER, status)
        ):
            limits = zip(STAGES, self.seconds, telemetry.limits, strict=True)
            over = [stage.name for stage, spent, limit in limits if spent > limit] or ["total"]
            logger.warning(OVER, **self._line(status, seconds), over=over)
        if telemetry.access_log_share and random.random() < telemetry.access_log_share:  # noqa: S311  a sample needs no secrecy
            access.info("request", **self._line(status, seconds))

    def _has_room(self, event: str, status: int) -> bool:
        """Whether such a line would be written now: one in 10 s with the same event, route, status and code."""
        return has_room(LOGGER, event, request_stats.route(self.route).template, status, self.code or None)

    def _line(self, status: int, seconds: float) -> dict[str, Any]:
        """Return the items of a log line, without the query string, which may have secrets of the client."""
        return {
            "request_id": self.request_id.decode(),
            "method": self._scope["method"],
            "route": request_stats.route(self.route).template,
            "path": self._scope["path"][:MAX_PATH_CHARACTERS],
            "status": status,
            **({"code": self.code} if self.code else {}),
            "ms": round(seconds * 1e3, 3),
            "stages": {
                stage.name: round(spent * 1e3, 3)
                for stage, spent in zip(STAGES, self.seconds, strict=True)
                if spent
            },
        }
