"""Admission control: a worker takes as many requests at a time as it can answer in time, and refuses others at once.

Without it, each request that comes makes all others later, until none is answered in time: at ten times of what a
worker can do, one in ten of its answers came within a second. A refusal is 503 `overloaded` with Retry-After.

A request counts from the end of its content to the beginning of its answer (ops/asgi/stock.py), so a client that
sends or reads slowly takes nobody's place. Most refusals are made where the request is parsed (ops/gunicorn/wire.py),
which costs a twentieth of an answer. There, probes are not refused, nor pages that the wire has or had lately. The
layer refuses what has to be computed after all. One turn of the event loop may read hundreds of requests before the
first of them gets to the layer, so the wire counts those that it lets pass in a turn.

The limit follows the queues that stand in a worker: the lag of its event loop, and the wait of quick statements for
a connection to Postgres that others use. The longer of the two counts:

| if the wait is | and a request was refused since the last look | then the limit |
| --- | --- | --- |
| over MAX_WAIT_SECONDS | yes or no | falls in proportion, by half at most, to LEAST at least |
| under half of it | yes | rises by one, to MOST at most |
| otherwise | | stays |

It is additive increase and multiplicative decrease (Chiu and Jain, 1989, doi 10.1016/0169-7552(89)90019-6), by as
much as the wait is too long: half as many requests wait half as long (Little, 1961, doi 10.1287/opre.9.3.383). Its
signal is a standing queue, as in CoDel (RFC 8289). A gradient of latencies, as in Netflix concurrency-limits, takes a
slow database for overload, and one limit for endpoints of 1 ms and of 300 ms has no latency to compare with. A slow
database is no overload: a statement that is not quick does not count, nor does the wait for a server that is away.

ADMISSION_LIMIT fixes the limit instead.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from types import MappingProxyType
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi import routes
from ops.asgi.disconnect import answer_nobody, has_left
from ops.asgi.problems import OVERLOADED, refuse
from ops.asgi.root_path import path_info
from ops.asgi.types import SHARED, Application, Receive, Scope, Send
from ops.postgres.checkouts import recent_waits
from ops.telemetry import request_stats
from ops.telemetry.metrics import metrics
from ops.telemetry.stopwatch import UNMATCHED, current

FIRST, LEAST, MOST = 64, 8, 512  # requests
ENOUGH = 4  # active requests, from which on another is begun only if its client is still there
# Of the limit, on top of it: for writes, and for pages that are computed for the cache, since many clients get them.
KEPT_SHARE = 0.25
LOOK_SECONDS = 0.02  # between two looks
# Seconds, on average. At 2 to 10 times the capacity of one worker, 0.02 let p99 be 33 to 62 ms, 0.015 28 to 41, with
# as many answers; 0.005 refused 30 % of the requests of 32 connections where other processes kept the cores busy.
MAX_WAIT_SECONDS = 0.015
SMOOTHING = 0.2  # the weight of the newest look
LEAST_FACTOR = 0.5  # of the limit before, at a look
RETRY_AFTER = b"retry-after", b"1"
READS = frozenset(("GET", "HEAD", "OPTIONS"))

LIMIT = metrics.gauge("admission_limit", "Requests that are computed at a time, at most.").labels()
ACTIVE = metrics.gauge("admission_active", "Requests that are being computed.").labels()
SHED = request_stats.SHED.labels("overload")


class Limit:
    """How many requests this worker computes at a time, at most, and how many it does."""

    def __init__(self) -> None:
        self.limit, self.least, self.most = FIRST, LEAST, MOST
        self.active = 0  # requests that are being computed
        self.begun = 0  # requests that have been computed, or are being, since the start
        self._coming = 0  # requests that found a place in this turn of the event loop, and are not active yet
        self._refused = self._refused_before = 0  # since the last look, and between that and the one before
        self._wait = 0.0

    def find_place(self) -> bool:
        """Whether there is a place for another request, which then counts as coming until the turn ends.

        While none has been refused lately, it does not count: it may need no computing.
        """
        if self.active + self._coming >= self.limit:
            return False
        if self._refused or self._refused_before:
            if not self._coming:
                # The tasks of these requests come next: then they are active, or wait for Redis or content.
                asyncio.get_running_loop().call_soon(self._end_turn)
            self._coming += 1
        return True

    def _end_turn(self) -> None:
        self._coming = 0

    def has_place(self, *, is_kept: bool = False) -> bool:
        """Whether there is a place for a request that has to be computed. Some are kept."""
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

    def sample(self) -> None:
        LIMIT.value, ACTIVE.value = self.limit, self.active


admission = Limit()
metrics.register(admission.sample)


class Admission:
    """The layer behind the page cache: a cached answer does not come so far.

    Where there is no page cache, this is the last layer that the wire asks (ops/asgi/hits.py): it has nothing ready.
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
            return answer_nobody()
        return self.application(scope, receive, send)


@asynccontextmanager
async def control_admission() -> AsyncIterator[None]:
    """Look at the wait for the lifespan of a worker; settings.ADMISSION_LIMIT may fix the limit."""
    if settings.ADMISSION_LIMIT:
        admission.limit = admission.least = admission.most = settings.ADMISSION_LIMIT
    looking = asyncio.create_task(_look())
    try:
        yield
    finally:
        looking.cancel()


async def _look() -> None:
    while True:
        due = perf_counter() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        admission.look(max(perf_counter() - due, recent_waits.take()))
