"""The page cache as an ASGI layer: answers cached requests from the tiers, and passes all others on."""

import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote

from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ValidationError
from django.urls import Resolver404, get_resolver
from django.urls.converters import get_converters

from api.cache import changes, metrics
from api.cache.conditions import Conditions, conditions_of, fails_precondition
from api.cache.entry import CACHE_NAME, Entry
from api.cache.lookup import COLLAPSED, HIT, L1, L2, MISS, NO_TIER, STALE, Lookup, Pending
from api.cache.memory import MAX_BYTES, Memory
from api.cache.policy import Policy, Target, Uncacheable, policy_of
from api.cache.release import release
from api.cache.rendering import Unstorable, render
from api.cache.shared import EVERYTHING, Shared
from api.problems import Problem
from ops.asgi import routes
from ops.asgi.answering import send_answer
from ops.asgi.disconnect import has_left
from ops.asgi.problems import refuse
from ops.asgi.types import Application, Fields, Message, Receive, Scope, Send, scheme_of
from ops.gunicorn import wire
from ops.redis.client import open_client
from ops.telemetry.metrics import metrics as registry
from ops.telemetry.stopwatch import CACHE, MIDDLEWARE, current

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 2048  # requests that a worker remembers, each with its Target, which takes 40 us to find
MAX_REMEMBERED_BYTES = 4096  # path and query of such a request

# How long requests with a key pass to the application, each for itself, after an answer that could not be stored.
# Varnish calls that "hit-for-miss", with the same default.
PASS_SECONDS = 120.0
MAX_PASSING = 4096  # keys of such requests that are remembered, 0.3 kB each

# An argument in a route that path() has made, and the characters that only routes of re_path() have.
ARGUMENT = re.compile(r"<(?:(\w+):)?(\w+)>")
REGULAR = frozenset("(^$\\")

BYPASS, PENDING = "bypass", "pending"
RETRY_SECONDS = 2  # Retry-After of an answer that is being computed
# The detail in Cache-Status (RFC 9211), by outcome and tier.
STORED = b"fwd=uri-miss; stored"
DETAILS = {
    (HIT, L2): b"hit; ttl=%d; detail=l2",
    (STALE, L2): b"hit; ttl=%d; detail=l2",
    (STALE, L1): b"hit; ttl=%d; detail=l1",
    (MISS, NO_TIER): b"fwd=uri-miss",
    (COLLAPSED, NO_TIER): b"fwd=uri-miss; collapsed",
    (COLLAPSED, L2): b"fwd=uri-miss; collapsed",
}


class PageCache:
    """The layer. It belongs to one event loop, and passes every request on unless `open_tiers` is entered."""

    def __init__(self, application: Application, *, memory: bool = True) -> None:
        """Without `memory`, there is only the second tier."""
        self.application = application
        self.lookup: Lookup | None = None
        self._memory = Memory(wire.ready, wire.recent, max_bytes=MAX_BYTES if memory else 0)
        self._remembered = lru_cache(MAX_REMEMBERED)(_target)
        self._release = release()
        self._root_path: str = settings.ROOT_PATH
        self._passing: dict[str, float] = {}  # by key: until then its requests pass, on the monotonic clock
        self._logged: set[Policy] = set()  # policies with an unstorable answer, each logged once

    @property
    def ready(self) -> dict[bytes, wire.Ready]:
        """The entries that the wire may send, by request target; see ops/asgi/hits.py."""
        return wire.ready

    @asynccontextmanager
    async def open_tiers(self) -> AsyncIterator[None]:
        """Answer from the cache within the block, the lifespan of a worker. A Redis that is down is no error here."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_client())
            shared = Shared(client, settings.CACHE_PREFIX, self._release)
            lookup = Lookup(lambda target: render(self.application, target), self._memory, shared)
            stack.callback(lookup.clear)
            stack.push_async_callback(lookup.close)
            publisher = await stack.enter_async_context(changes.open_publisher(lookup))
            registry.register(sampler := metrics.sampler(lookup, publisher))
            stack.callback(registry.samplers.remove, sampler)
            stack.callback(sampler)  # once more at the end, for the counts since the last time
            self.lookup = lookup
            stack.callback(setattr, self, "lookup", None)
            yield

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer at once from the worker's memory, or look the entry up; pass other requests on."""
        if scope["type"] != "http" or scope["method"] != "GET" or self.lookup is None:
            return self.application(scope, receive, send)
        path, query, root_path = scope["path"], scope["query_string"], scope.get("root_path", "")
        find = self._remembered if len(path) + len(query) <= MAX_REMEMBERED_BYTES else _target
        target = find(path, query, root_path, scheme_of(scope))
        if target is None:
            return self.application(scope, receive, send)
        if watch := current.get():
            watch.route = target.route
            watch.claim(CACHE)
        conditions = conditions_of(scope["headers"])
        if conditions is None:
            return self._bypass(target, scope, receive, send)
        if held := self.lookup.in_memory(target):
            entry, outcome = held
            target.policy.counts[outcome, L1] += 1
            # From now on the wire answers requests with this raw target and scheme. The only prefix that it knows is
            # settings.ROOT_PATH, so it learns only entries with links that begin with this prefix.
            if outcome == HIT and root_path == self._root_path and (sent := scope.get("raw_path")):
                sent = sent + b"?" + query if query else sent
                if sent not in entry.raw_targets:
                    self._memory.learn(entry, sent)
            return _send_entry(send, entry, conditions, entry.age_and_status.from_memory())
        if self._passing.get(target.key, 0.0) > time.monotonic():
            return self._bypass(target, scope, receive, send)
        return self._find(target, conditions, scope, receive, send)

    async def _find(
        self, target: Target, conditions: Conditions, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer from Redis or the application. A plain error is sent as it is, and not stored.

        If the answer may not go to several clients, or cannot be stored, the endpoint answers this request itself.
        """
        if has_left(scope):
            return
        policy = target.policy
        try:
            found = await cast("Lookup", self.lookup).find(target)
            obstacle = found.answer.obstacle if found.answer else ""
        except Pending:
            policy.counts[PENDING, NO_TIER] += 1
            said = "The answer is being computed, which takes a while. Try again."
            fields = [(b"retry-after", b"%d" % RETRY_SECONDS), _cache_status(b"fwd=uri-miss")]
            await refuse(send, 503, "being_computed", said, fields)
            return
        except Unstorable as error:
            obstacle = str(error)
        if obstacle:
            # From now on the endpoint is called once for a request with this key, not twice.
            self._passing.pop(target.key, None)
            self._passing[target.key] = time.monotonic() + PASS_SECONDS
            if len(self._passing) > MAX_PASSING:
                del self._passing[next(iter(self._passing))]
            if policy not in self._logged:
                self._logged.add(policy)
                logger.warning(
                    "%s is marked as cached, but an answer of it cannot be: %s%s, since %s",
                    *(policy.name, target.root_path, target.path, obstacle),
                )
            await self._bypass(target, scope, receive, send)
            return
        policy.counts[found.outcome, found.tier] += 1
        if unstored := found.answer:
            await send_answer(
                send, unstored.status, _fields_of_unstored(unstored.fields, b"fwd=uri-miss"), unstored.body
            )
        elif found.entry:
            detail = STORED if found.is_shared else DETAILS[found.outcome, found.tier]
            await _send_entry(send, found.entry, conditions, found.entry.age_and_status.fields(detail))

    def _bypass(self, target: Target, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Have the endpoint answer this request itself, and mark the answer as not stored."""
        target.policy.counts[BYPASS, NO_TIER] += 1
        if watch := current.get():
            watch.rebase(MIDDLEWARE)

        async def send_unstored(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": _fields_of_unstored(message.get("headers", []), b"fwd=bypass"),
                }
            await send(message)

        return self.application(scope, receive, send_unstored)


def _target(path: str, query: bytes, root_path: str = "", scheme: str = "http") -> Target | None:
    """Return the Target of a request; None if the endpoint is not cached, or if no entry can answer the request."""
    try:
        path = path.removeprefix(root_path)
        match: Any = routes.resolve(get_resolver(), path)
        policy = policy_of(match.func)
        if policy is None:
            return None
        if match.captured_kwargs and REGULAR.isdisjoint(match.route):
            # The path is made canonical by its converters, as reverse() makes it: /page/007 is /page/7.
            path = "/" + ARGUMENT.sub(
                lambda found: get_converters()[found[1] or "str"].to_url(match.captured_kwargs[found[2]]),
                match.route,
            )
        own_query = policy.resource.canonical_query(query.decode())  # as Django decodes it
        key = f"{policy.resource.form_digest}{quote(root_path + path)}?{own_query}"
        tags = () if policy.goes_by_age else (*policy.tags(match.kwargs), EVERYTHING)
        if scheme != "http":  # over HTTPS, the endpoint may answer other links
            key = f"{scheme}:{key}"
        return Target(policy, key, tags, match.route, root_path, path, own_query, scheme)
    except (Resolver404, Problem, Uncacheable, UnicodeDecodeError, ValidationError):
        return None


def _send_entry(send: Send, entry: Entry, conditions: Conditions, age_and_status: Fields) -> Awaitable[None]:
    """Answer 200 or 304 with the entry, or 412. `age_and_status`: its fields Age and Cache-Status, in this order."""
    chosen = entry.select(conditions)
    fields = chosen.fields
    if rare := conditions.rare:
        if fails_precondition(rare, chosen.etag, entry.modified):
            detail = "The resource has another representation than If-Match or If-Unmodified-Since asks for."
            # Without Age, since the 412 itself is made now.
            return refuse(send, 412, "precondition_failed", detail, age_and_status[1:])
        if rare.has_credentials:
            fields = [
                (name, value.replace(b"public", b"private") if name == b"cache-control" else value)
                for name, value in fields
            ]
    return send_answer(send, chosen.status, fields + age_and_status, chosen.body)


def _fields_of_unstored(fields: Fields, detail: bytes) -> Fields:
    """Add Cache-Status to the fields of an answer that was not stored, and no-store if there is no Cache-Control."""
    more = [_cache_status(detail)]
    if not any(name.lower() == b"cache-control" for name, _ in fields):
        more.append((b"cache-control", b"no-store"))
    return [*fields, *more]


def _cache_status(detail: bytes) -> tuple[bytes, bytes]:
    return b"cache-status", b"%b; %b" % (CACHE_NAME, detail)
