"""Admission control: a worker computes as many requests at once as it can answer in time, and refuses the others.

Without it, each new request delays all others, until none is answered in time: at ten times the capacity of a worker,
one in ten of its answers came within a second. A refusal is 503 `overloaded` with Retry-After.

A request counts from the end of its content to the beginning of its answer (ops/asgi/stock.py), so a client that
sends or reads slowly takes no place from others. Most refusals are made where the request is parsed
(ops/gunicorn/wire.py), at a twentieth of the cost of an answer. The wire refuses no probe, and no page that it has
ready or had ready lately. The layer `Admission` refuses those requests that have to be computed after all. One turn
of the event loop may read hundreds of requests before the first of them gets to the layer. So, while requests are
refused, the wire counts those that it lets pass in a turn.

The limit follows two queues in a worker: the lag of its event loop, and the wait of quick statements for a connection
to Postgres that other statements use. The longer of the two waits counts:

| if the wait is | and a request was refused since the last look | then the limit |
| --- | --- | --- |
| over MAX_WAIT_SECONDS | yes or no | falls in proportion, by half at most, to LEAST at least |
| under half of it | yes | rises by one, to MOST at most |
| otherwise | | stays |

This is additive increase and multiplicative decrease (Chiu and Jain, 1989, doi 10.1016/0169-7552(89)90019-6). The
limit falls by the factor by which the wait is too long, since half as many requests wait half as long (Little, 1961,
doi 10.1287/opre.9.3.383). The signal is a standing queue, as in CoDel (RFC 8289). A gradient of latencies, as in
Netflix concurrency-limits, would take a slow database for overload, and one limit for endpoints of 1 ms and of 300 ms
has no latency to compare with. A slow database is no overload: neither a slow statement nor the wait for a server
that is away counts.

ADMISSION_LIMIT fixes the limit instead.
"""

import asyncio
from asyncio import sleep
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from types import MappingProxyType
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi import routes
from ops.asgi.disconnect import has_left, send_nothing
from ops.asgi.problems import OVERLOADED, refuse
from ops.asgi.root_path import path_info
from ops.asgi.types import SHARED, Application, Receive, Scope, Send
from ops.postgres.checkouts import recent_waits
from ops.telemetry import request_stats
from ops.telemetry.metrics import metrics
from ops.telemetry.stopwatch import UNMATCHED, current

FIRST, LEAST, MOST = 64, 8, 512  # requests
ENOUGH = 4  # active requests; from this number on, another begins only if its client is still there
# The share of the limit that is added to it for writes, and for pages that are computed for the cache, since many
# clients get them.
KEPT_SHARE = 0.25
LOOK_SECONDS = 0.02  # seconds between two looks
# The same while no request is computed, so that an idle worker wakes up 39 times a second instead of 80.
IDLE_LOOK_SECONDS = 0.2
# Seconds that requests may wait, smoothed. At 2 to 10 times the capacity of one worker, p99 was 33 to 62 ms for 0.02
# and 28 to 41 ms for 0.015, for the same number of answers; 0.005 refused 30 % of the requests of 32 connections
# where other processes kept the cores busy.
MAX_WAIT_SECONDS = 0.015
SMOOTHING = 0.2  # the weight of the newest look
LEAST_FACTOR = 0.5  # a look leaves at least this share of the limit
RETRY_AFTER = b"retry-after", b"1"
READS = frozenset(("GET", "HEAD", "OPTIONS"))

LIMIT = metrics.gauge("admission_limit", "Requests that are computed at a time, at most.").labels()
ACTIVE = metrics.gauge("admission_active", "Requests that are being computed.").labels()
SHED = request_stats.SHED.labels("overload")


class Limit:
    """The limit of requests that this worker computes at once, and the number that it computes now.

    Writes and pages for the cache may exceed the limit by KEPT_SHARE.
    """

    def __init__(self) -> None:
        self.limit, self.least, self.most = FIRST, LEAST, MOST
        self.active = 0  # requests that are being computed
        self.begun = 0  # requests that the handler has begun, since the start
        # Requests that found a place in this turn of the event loop, and are not active yet. They are counted only if
        # a request was refused lately.
        self._coming = 0
        # Refusals since the last look, and in the interval before that look.
        self._refused = self._refused_before = 0
        self._wait = 0.0

    def find_place(self) -> bool:
        """For the wire: whether there is a place for another request.

        If a request was refused lately, this one counts as coming until the turn ends. Otherwise it does not, since
        many requests of one turn may wait for one computation.
        """
        if self.active + self._coming >= self.limit:
            return False
        if self._refused or self._refused_before:
            if not self._coming:
                # The tasks of these requests run next: each is then active, or waits for Redis or for its content.
                asyncio.get_running_loop().call_soon(self._end_turn)
            self._coming += 1
        return True

    def _end_turn(self) -> None:
        self._coming = 0

    def has_place(self, *, is_kept: bool = False) -> bool:
        """For the layer: whether there is a place for a request to be computed.

        `is_kept` adds KEPT_SHARE to the limit.
        """
        return self.active < self.limit * (1 + KEPT_SHARE * is_kept)

    def count_refusal(self) -> None:
        self._refused += 1
        SHED.value += 1

    def look(self, wait: float) -> None:
        """Adapt the limit to a wait, in seconds."""
        self._wait += SMOOTHING * (wait - self._wait)
        if self._wait > MAX_WAIT_SECONDS:
            self.limit = max(self.least, int(self.limit * max(LEAST_FACTOR, MAX_WAIT_SECONDS / self._wait)))
        elif self._wait < MAX_WAIT_SECONDS / 2 and self._refused:
            self.limit = min(self.most, self.limit + 1)
        self._refused, self._refused_before = 0, self._refused

    def is_at_rest(self) -> bool:
        """Whether no request is being computed, and all signs of an overload are gone."""
        is_calm = self._wait < MAX_WAIT_SECONDS / 2 and not self._refused_before
        return is_calm and not self.active

    def sample(self) -> None:
        LIMIT.value, ACTIVE.value = self.limit, self.active


admission = Limit()
metrics.register(admission.sample)


class Admission:
    """The layer behind the page cache, which refuses a request if there is no place. Cached answers do not reach it.

    `ready` is empty: without a page cache, the wire looks for ready answers here (ops/asgi/hits.py).
    """

    ready: Mapping[bytes, Any] = MappingProxyType({})

    def __init__(self, application: Application) -> None:
        self.application = application

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and not admission.has_place(
            is_kept=scope["method"] not in READS or SHARED in scope
        ):
            admission.count_refusal()
            if (watch := current.get()) and watch.route == UNMATCHED:
                watch.route = routes.route_of(path_info(scope))
            return refuse(send, 503, "overloaded", OVERLOADED, [RETRY_AFTER])
        if admission.active >= ENOUGH and has_left(scope):
            return send_nothing()
        return self.application(scope, receive, send)


@asynccontextmanager
async def control_admission() -> AsyncIterator[None]:
    """Adapt the limit to the waits, for the lifespan of a worker. settings.ADMISSION_LIMIT may fix it instead."""
    if settings.ADMISSION_LIMIT:
        admission.limit = admission.least = admission.most = settings.ADMISSION_LIMIT
    looking = asyncio.create_task(_look())
    try:
        yield
    finally:
        looking.cancel()


async def _look() -> None:
    begun = 0
    while True:
        is_idle = admission.begun == begun and admission.is_at_rest()
        begun, pause = admission.begun, IDLE_LOOK_SECONDS if is_idle else LOOK_SECONDS
        due = perf_counter() + pause
        await sleep(pause)
        admission.look(max(perf_counter() - due, recent_waits.take()))
