"""The page cache as an ASGI layer: answers from the tiers what is cached, and lets everything else through."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from typing import cast

from django.conf import settings
from django.core.exceptions import ValidationError
from django.urls import Resolver404, get_resolver

from api.cache import changes, figures
from api.cache.conditions import Conditions, read
from api.cache.entry import NAME, Entry
from api.cache.finding import COLLAPSED, HIT, L1, L2, MISS, NONE, STALE, Finder
from api.cache.memory import Memory
from api.cache.policy import policy_of
from api.cache.rendering import Unstorable, render
from api.cache.shared import EVERYTHING, Shared, Target
from api.problems import Problem
from ops.asgi import routes, wire
from ops.asgi.answering import answer
from ops.asgi.protocol import Application, Fields, Message, Receive, Scope, Send
from ops.instruments.metrics import metrics
from ops.instruments.stopwatch import CACHE, MIDDLEWARE, current
from ops.redis.client import open_client

TARGETS = 2048  # requests whose key a worker remembers; to find it takes 40 us
LONGEST = 4096  # characters of a path and query that are remembered

BYPASS = "bypass"
HOW = {
    (HIT, L2): b"hit; ttl=%d; detail=l2",
    (STALE, L2): b"hit; ttl=%d; detail=l2",
    (STALE, L1): b"hit; ttl=%d; detail=l1",
    (MISS, NONE): b"fwd=uri-miss; stored",
    (COLLAPSED, NONE): b"fwd=uri-miss; collapsed",
    (COLLAPSED, L2): b"fwd=uri-miss; collapsed",
}


class PageCache:
    """Belongs to one event loop. Lets everything through until `open_tiers` was entered."""

    def __init__(self, application: Application, *, memory: bool = True) -> None:
        """Without `memory`, there is only the second tier."""
        self.application = application
        self.finder: Finder | None = None
        self._memory = Memory(wire.ready) if memory else None
        self._remembered = lru_cache(TARGETS)(_target)

    @asynccontextmanager
    async def open_tiers(self) -> AsyncIterator[None]:
        """The cache, open: for the lifespan of a worker. A Redis that is down is no error here."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(open_client())
            shared = Shared(client, settings.CACHE_PREFIX)
            finder = Finder(lambda scope: render(self.application, scope), self._memory, shared)
            stack.callback(finder.clear)
            stack.push_async_callback(finder.close)
            announcer = await stack.enter_async_context(changes.heard(finder))
            metrics.register(sampler := figures.sampler(finder, announcer))
            stack.callback(metrics.samplers.remove, sampler)
            self.finder = finder
            stack.callback(setattr, self, "finder", None)
            yield

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or scope["method"] != "GET" or self.finder is None:
            return self.application(scope, receive, send)
        path, query = scope["path"], scope["query_string"]
        find = self._remembered if len(path) + len(query) <= LONGEST else _target
        target = find(path, query)
        if target is None:
            return self.application(scope, receive, send)
        if watch := current.get():
            watch.route = target.policy.route
            watch.claim(CACHE)
        conditions = read(scope["headers"])
        if conditions is None:
            return self._bypass(target, scope, receive, send)
        if recalled := self.finder.recall(target, scope):
            entry, outcome = recalled
            target.policy.counts[outcome, L1] += 1
            if outcome == HIT:
                self._spell(entry, scope)
            return _send_entry(send, entry, conditions, entry.teller.told())
        return self._find(target, conditions, scope, receive, send)

    async def _find(
        self, target: Target, conditions: Conditions, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            found = await cast("Finder", self.finder).find(target, scope)
        except Unstorable:
            found = None
        if found is None or (found.answer and not found.answer.is_everybodys):
            await self._bypass(target, scope, receive, send)
            return
        target.policy.counts[found.outcome, found.tier] += 1
        if refused := found.answer:
            await answer(send, refused.status, _unstored(refused.fields, b"fwd=uri-miss"), refused.body)
        elif found.entry:
            told = found.entry.teller.tell(HOW[found.outcome, found.tier])
            await _send_entry(send, found.entry, conditions, told)

    def _bypass(self, target: Target, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        target.policy.counts[BYPASS, NONE] += 1
        if watch := current.get():
            watch.rebase(MIDDLEWARE)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _unstored(message.get("headers", []), b"fwd=bypass")}
            await send(message)

        return self.application(scope, receive, tell)

    def _spell(self, entry: Entry, scope: Scope) -> None:
        """Have the wire answer the next request that is spelled like this one."""
        path, query = scope.get("raw_path") or b"", scope["query_string"]
        spelled = path + b"?" + query if query else path
        if spelled not in entry.targets and path and self._memory is not None and not scope.get("root_path"):
            self._memory.spell(entry, spelled)


def _target(path: str, query: bytes) -> Target | None:
    """What is cached for a request, or None if nothing is: another endpoint, or parameters that it refuses."""
    try:
        match = routes.resolve(get_resolver(), path)
        policy = policy_of(match.func)
        if policy is None:
            return None
        policy.route = match.route
        key = policy.entry(match.kwargs, query.decode())  # as Django decodes it
        return Target(policy, key, (*policy.tags(match.kwargs), EVERYTHING))
    except (Resolver404, Problem, UnicodeDecodeError, ValidationError):
        return None


def _send_entry(send: Send, entry: Entry, conditions: Conditions, told: Fields) -> Awaitable[None]:
    chosen = entry.select(conditions)
    return answer(send, chosen.status, chosen.fields + told, chosen.body)


def _unstored(fields: Fields, how: bytes) -> Fields:
    """The fields of an answer that was not stored, and is not for others to store either."""
    told = [*fields, (b"cache-status", b"%b; %b" % (NAME, how))]
    if not any(name.lower() == b"cache-control" for name, _ in fields):
        told.append((b"cache-control", b"no-store"))
    return told
