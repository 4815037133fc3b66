"""Calls to another service over HTTP.

    WEATHER = Upstream("weather", settings.WEATHER_URL, timeout=0.25)

    answer = await WEATHER.get("/today")    # an Answer, or UpstreamUnavailable within 0.25 s

bound                | by
---------------------+----------------------------------------------------------------------------------------------
time                 | `timeout`, for all of a call: name look-up, connecting, sending, receiving, retries
calls under way      | MAX_IN_FLIGHT an upstream in each worker; one more is refused at once
an answer's content  | `max_bytes`; its header fields: 128 of 8 kB (aiohttp's)
tries                | MAX_TRIES, of methods that may be repeated (RFC 9110, 9.2.2)
a failing upstream   | a breaker: no calls until the upstream answers a probe in the background

A redirect is an answer like any other, and is not followed. There are no cookies, and the environment's proxies are
not used.
"""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from itertools import count
from time import perf_counter
from typing import NamedTuple

import aiohttp
from yarl import URL

from ops.http.client import MAX_IN_FLIGHT, Client, State, clients, open_client
from ops.telemetry import stopwatch
from ops.telemetry.metrics import metrics
from ops.telemetry.stopwatch import UPSTREAM

MAX_TRIES = 3
# Seconds: the longest wait before the second try, which doubles with each further one. The wait itself is drawn from
# 0 to that ("full jitter"), so that callers which failed together do not come again together.
BACKOFF_SECONDS = 0.02
MAX_HOLD_SECONDS = 60.0  # that a Retry-After keeps calls away, at most
REPEATABLE = frozenset(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
TOO_MANY, SERVER_ERROR = 429, 500
PATH = re.compile(r"([/?][!-~]*)?")
PASSING = frozenset([TOO_MANY, 502, 503, 504])  # statuses that may have passed at another try

CALLS = metrics.counter(
    "upstream_calls_total",
    "Calls to other services, by class of status, or by the reason that there was no answer of use.",
    *("upstream", "outcome"),
)
DURATION = metrics.histogram("upstream_call_seconds", "A call that was made, with all its tries.", "upstream")
OPEN = metrics.gauge("upstream_breaker_open", "1 while an upstream is left alone.", "upstream", over="max")


class UpstreamUnavailable(Exception):
    """Raised if an upstream gave no answer of use; `reason` is one of these words.

    timeout      | there was no whole answer in time
    connection   | the connection was refused or lost
    malformed    | the answer is no HTTP, or ended too early
    too_large    | the answer has more than `max_bytes`
    failed       | the status is 5xx
    overloaded   | the status is 429, or 5xx with a Retry-After; or such a Retry-After has not passed yet
    open, busy   | no call was made: the breaker is open; MAX_IN_FLIGHT calls are under way
    unconfigured | the upstream has no URL
    invalid      | the content is not as it should be (ops/http/kept.py)
    """

    def __init__(self, upstream: str, reason: str, detail: object = "") -> None:
        super().__init__(f"{upstream}: {reason}" + (f": {detail}" if detail else ""))
        self.upstream, self.reason = upstream, reason


class Answer(NamedTuple):
    """An answer with a status below 500, not 429. Field names are in lower case; of equal names the last wins."""

    status: int
    fields: Mapping[str, str]
    content: bytes


class Upstream:
    """A service that this one calls. Declare it once, next to the code that calls it."""

    def __init__(
        self, name: str, url: str, *, timeout: float, max_bytes: int = 64 * 1024, probe: str = ""
    ) -> None:
        """`name` is its name in metrics, logs and problems. If `url` is empty, each call fails as `unconfigured`.

        `timeout` is in seconds. `probe` is the path to which a GET is sent while the breaker is open.
        """
        self.name, self.url, self.timeout, self.max_bytes, self.probe = name, url, timeout, max_bytes, probe

    async def get(self, path: str = "") -> Answer:
        """Send a GET, and return the answer. Raises UpstreamUnavailable."""
        return await self.send("GET", path)

    async def send(
        self, method: str, path: str = "", *, content: bytes = b"", fields: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request for `url` + `path`, and return the answer. Raises UpstreamUnavailable.

        The request carries the id and the trace of the request that is being answered.

        Raises ValueError for invalid fields, and for a path that is not encoded or could change the host.
        """
        if not PATH.fullmatch(path):
            raise ValueError(f"a path begins with / or ?, and is percent-encoded: {path!r}")
        watch = stopwatch.current.get()
        request = Request(
            method, URL(self.url + path, encoded=True), content, dict(watch.passed_on()) if watch else {}
        )
        request.fields.update(fields or {})
        outcome = "error"
        try:
            with UPSTREAM:
                if client := clients.get(asyncio.get_running_loop()):
                    answer = await self._call(client, request)
                else:
                    async with open_client() as client:
                        answer = await self._call(client, request)
            outcome = f"{answer.status // 100}xx"
        except UpstreamUnavailable as error:
            outcome = error.reason
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            CALLS.labels(self.name, outcome).value += 1
        return answer

    async def _call(self, client: Client, request: "Request") -> Answer:
        """Make the call, if it may be made now, and tell the breaker its outcome."""
        if not self.url:
            raise UpstreamUnavailable(self.name, "unconfigured")
        state = client.states.get(self.name)
        if state is None:
            state = client.states[self.name] = State(self.name, lambda: self._probe(client))
        if state.breaker.is_open:
            raise UpstreamUnavailable(self.name, "open")
        if asyncio.get_running_loop().time() < state.not_before:
            raise UpstreamUnavailable(self.name, "overloaded", "it has asked for a pause")
        if state.in_flight >= MAX_IN_FLIGHT:
            raise UpstreamUnavailable(self.name, "busy")
        state.in_flight += 1
        began = perf_counter()
        try:
            answer = await self._try_in_time(client, state, request)
        except UpstreamUnavailable as error:
            state.breaker.failed(error)
            raise
        finally:
            state.in_flight -= 1
            DURATION.labels(self.name).observe(perf_counter() - began)
        state.breaker.succeeded()
        return answer

    async def _probe(self, client: Client) -> None:
        """Send a probe. Raises UpstreamUnavailable if the breaker has to stay open."""
        state = client.states[self.name]
        if asyncio.get_running_loop().time() < state.not_before:
            raise UpstreamUnavailable(self.name, "overloaded", "it has asked for a pause")
        request = Request("GET", URL(self.url + self.probe, encoded=True), b"", {})
        await self._try_in_time(client, state, request)

    async def _try_in_time(self, client: Client, state: State, request: "Request") -> Answer:
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            async with asyncio.timeout_at(deadline):
                return await self._try(client, state, request, deadline)
        except TimeoutError:
            raise UpstreamUnavailable(self.name, "timeout") from None

    async def _try(self, client: Client, state: State, request: "Request", deadline: float) -> Answer:
        """Send the request until an answer is of use, MAX_TRIES times at most, with pauses that end in time."""
        loop = asyncio.get_running_loop()
        for tried in count(1):
            pause = random.uniform(0, BACKOFF_SECONDS * 2 ** (tried - 1))  # noqa: S311  no secret
            try:
                answer = await self._send(client, request)
            except aiohttp.ClientConnectionError as error:
                # For a connection that was lost, not refused, aiohttp has already made one more try, on another.
                may_pass = isinstance(error, aiohttp.ClientConnectorError)
                failure = UpstreamUnavailable(self.name, "connection", error)
            except aiohttp.ClientError as error:
                # The cause is left out: its text has the whole URL, with any secret in it.
                raise UpstreamUnavailable(self.name, "malformed", type(error).__name__) from None
            else:
                if answer.status < SERVER_ERROR and answer.status != TOO_MANY:
                    return answer
                may_pass = answer.status in PASSING
                asked = retry_after(answer.fields.get("retry-after", ""))
                if asked:
                    state.not_before = loop.time() + min(asked, MAX_HOLD_SECONDS)
                    pause += asked
                reason = "overloaded" if asked or answer.status == TOO_MANY else "failed"
                failure = UpstreamUnavailable(self.name, reason, answer.status)
            repeats = may_pass and request.method in REPEATABLE and tried < MAX_TRIES
            if not repeats or loop.time() + pause >= deadline:
                raise failure
            await asyncio.sleep(pause)
        raise AssertionError  # count() has no end

    async def _send(self, client: Client, request: "Request") -> Answer:
        """Send the request once. Raises aiohttp.ClientError or UpstreamUnavailable."""
        async with client.session.request(
            request.method,
            request.url,
            data=request.content or None,
            headers=request.fields,
            allow_redirects=False,
        ) as response:
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > self.max_bytes:
                    response.close()
                    raise UpstreamUnavailable(self.name, "too_large", f"more than {self.max_bytes} bytes")
            fields = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, fields, bytes(content))


class Request(NamedTuple):
    method: str
    url: URL
    content: bytes
    fields: dict[str, str]


def retry_after(text: str) -> float:
    """Return the seconds of a Retry-After, a number or a date (RFC 9110, 10.2.3); 0 if it is neither."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def sample() -> None:
    for client in clients.values():
        for name, state in client.states.items():
            OPEN.labels(name).value = state.breaker.is_open


metrics.register(sample)
