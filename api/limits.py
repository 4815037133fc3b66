"""Rate limits as an ASGI layer: by the client's name, or, without a valid credential, by its address.

The layer stands in front of the page cache and of every endpoint, so that the content of a refused request is not
even read. The class of a request is `read` or `write` by its method, or the one that its endpoint names with
@rate_class. The limit of a class is in settings.RATE_LIMITS; requests of a class without a limit are not counted.

A hit that is written where the request is parsed (ops/gunicorn/wire.py) is not counted: such a hit takes a tenth of
the time that counting would take.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from time import monotonic
from typing import Any, TypeVar

from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.urls import Resolver404

from api.auth import IDENTITY, Authenticated, Identity, authenticate, credential_of_fields
from api.problems import SAFE
from ops.asgi import routes
from ops.asgi.answering import Adding
from ops.asgi.clients import address_of, network_of, trusted_in
from ops.asgi.hits import always
from ops.asgi.problems import refuse
from ops.asgi.root_path import path_info
from ops.asgi.types import Application, Fields, Receive, Scope, Send
from ops.redis.client import open_client
from ops.redis.rates import Limiter, RateLimit, Verdict
from ops.telemetry.stopwatch import AUTH

View = TypeVar("View", bound=Callable[..., Any])

READ, WRITE = "read", "write"
READS = frozenset((*SAFE, "OPTIONS"))
# that endpoints for reads name; if neither `read` nor one of these has a limit, no route is looked up for reads
read_classes: set[str] = set()


def rate_class(name: str) -> Callable[[View], View]:
    """Count the endpoint's requests against settings.RATE_LIMITS[name]. It stands beside @cached, below the route."""

    def mark(view: View) -> View:
        view.rate_class = name  # type: ignore[attr-defined]
        return view

    return mark


class RateLimits:
    """The layer. It belongs to one event loop, and passes every request on unless `counting` is entered."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._limits: dict[str, RateLimit | None] = settings.RATE_LIMITS
        self._is_trusted = trusted_in(settings.TRUSTED_PROXIES)
        self._limiter: Limiter | None = None
        self._limits_reads = self._limits_writes = False

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Count requests within the block, the lifespan of a worker. A Redis that is down is no error here."""
        # Whether reads, and whether other requests, may have a limit.
        self._limits_reads = any(self._limits[name] for name in {READ, *read_classes})
        self._limits_writes = any(self._limits.values())
        async with open_client("Redis, for rate limits,") as client:
            self._limiter = Limiter(client, f"{settings.CACHE_PREFIX}:rate")
            try:
                yield
            finally:
                self._limiter = None

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if (
            scope["type"] == "http"
            and self._limiter
            and (self._limits_reads if scope["method"] in READS else self._limits_writes)
        ):
            name = class_of(scope)
            if limit := self._limits[name]:
                return self._count((name, limit), scope, receive, send)
        return self.application(scope, receive, send)

    admits = always

    async def _count(
        self, counted: tuple[str, RateLimit], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Count a request, and pass it on or refuse it. `counted` is its class with the limit."""
        name, limit = counted
        result: Identity | Exception | None = None
        if credential := credential_of_fields(scope["headers"]):
            try:
                with AUTH:
                    result = await authenticate(credential)
            except Exception as error:  # noqa: BLE001  the endpoint raises it, if it needs the identity
                result = error
            scope = {**scope, IDENTITY: Authenticated(result, monotonic())}
        if isinstance(result, Identity):
            client_id = f"name {result.name}"
        else:
            address = address_of(scope["headers"], scope.get("client"), self._is_trusted)
            client_id = address and network_of(address)
        if not client_id or not self._limiter:  # the peer is on a unix socket, or the worker stops
            await self.application(scope, receive, send)
            return
        verdict = await self._limiter.take(
            limit, f"{name}:{blake2b(client_id.encode(), digest_size=12).hexdigest()}"
        )
        fields = fields_of(name, limit, verdict)
        if verdict.taken:
            await self.application(scope, receive, Adding(send, fields).send)
            return
        detail = f"There were more than {limit.quota} such requests in {limit.seconds:g} s. Try again later."
        fields.append((b"retry-after", b"%d" % verdict.reset))
        await refuse(send, 429, "rate_limit_exceeded", detail, fields)


def class_of(scope: Scope) -> str:
    """Return the rate class of a request, by its route and method."""
    method: str = scope["method"]
    try:
        view = routes.match_of(scope, path_info(scope)).func
    except Resolver404:
        view = None
    classes: dict[str, str] = getattr(view, "rate_classes", {})  # by method: see api/ninja.py
    return classes.get("GET" if method == "HEAD" else method, READ if method in READS else WRITE)


def fields_of(name: str, limit: RateLimit, verdict: Verdict) -> Fields:
    """Return the fields RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
    policy = b'"%b";q=%d;w=%d' % (name.encode(), limit.quota, max(1, round(limit.seconds)))
    left = b'"%b";r=%d;t=%d' % (name.encode(), verdict.remaining, verdict.reset)
    return [(b"ratelimit-policy", policy), (b"ratelimit", left)]
