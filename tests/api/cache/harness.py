"""The cache in pieces: an application with answers that a test sets, a lookup over the real Valkey, a server."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest
from django.conf import settings

from api.cache import changes
from api.cache.changes import CONFIRM
from api.cache.entry import Entry
from api.cache.layer import PageCache
from api.cache.lookup import Lookup
from api.cache.memory import MAX_BYTES, Memory
from api.cache.policy import Dependency, Endpoint, Policy, Target
from api.cache.rendering import render
from api.cache.shared import EVERYTHING, Shared
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.types import Application, Fields, Receive, Scope, Send
from ops.gunicorn.wire import Ready
from ops.redis.client import open_client
from tests.ops.asgi.server import serve
from tests.shop.models import Category, Product

JSON: Fields = [(b"content-type", b"application/json")]
DEADLINE = 10.0
FIRST_EXTRA = 2_000_000  # ids from here on are a test's own


class Clock:
    """The time module, `ahead` of the real one; `skew` moves the calendar only."""

    def __init__(self) -> None:
        self.ahead = self.skew = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def time(self) -> float:
        return time.time() + self.ahead + self.skew

    def perf_counter(self) -> float:
        return time.perf_counter() + self.ahead


class Origin:
    """The application behind the cache."""

    def __init__(self) -> None:
        self.calls = 0
        self.status, self.fields, self.body = 200, JSON, b""
        self.error: Exception | None = None
        self.asked = asyncio.Event()  # set at each call
        self.released = asyncio.Event()  # each answer waits for it
        self.released.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        body = self.body or b"answer %d" % self.calls
        self.asked.set()
        await self.released.wait()
        if self.error:
            raise self.error
        fields = [*self.fields, (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": self.status, "headers": fields})
        await send({"type": "http.response.body", "body": body})


def policy(name: str = "page", fresh: float = 10, stale: float = 60, **options: Any) -> Policy:
    depends_on = tuple(map(Dependency, (Product, Category)))
    return Policy(name, Endpoint(name, depends_on), fresh, stale, **{"depends_on": depends_on} | options)


def target(key: str = "page?", **options: Any) -> Target:
    made = policy(**options)
    return Target(made, key, made.tags({}))


def entry(body: bytes = b"{}", fields: Fields = JSON, **options: Any) -> Entry:
    known: dict[str, Any] = {"created": time.time(), "versions": {"shop.product": b"1"}}
    made = options.pop("policy", None) or policy()
    asked = Target(made, options.pop("key", "page?"), ())
    return Entry(asked, fields, body, **known | options)


@dataclass
class Worker:
    """A worker's part of the cache."""

    origin: Origin
    lookup: Lookup
    wire: dict[bytes, Ready]

    @property
    def memory(self) -> Memory:
        return self.lookup.memory

    async def get(self, target: Target) -> tuple[bytes, str, str]:
        """As the layer does: body, outcome, tier."""
        if held := self.lookup.in_memory(target):
            return held[0].body, held[1], "l1"
        found = await self.lookup.find(target)
        answer = found.entry or found.answer
        assert answer
        return answer.body, found.outcome, found.tier

    async def settle(self) -> None:
        """Wait until nothing is done in the background."""
        async with asyncio.timeout(DEADLINE):
            while self.lookup._tasks:
                await asyncio.wait([*self.lookup._tasks])


@asynccontextmanager
async def worker(
    origin: Origin | None = None, *, memory: bool = True, release: str = "release"
) -> AsyncIterator[Worker]:
    application = origin or Origin()
    ready: dict[bytes, Ready] = {}
    async with open_client() as client:
        shared = Shared(client, settings.CACHE_PREFIX, release)
        kept = Memory(ready, max_bytes=MAX_BYTES if memory else 0)
        lookup = Lookup(lambda target: render(application, target), kept, shared)
        try:
            yield Worker(application, lookup, ready)
        finally:
            await lookup.close()


@dataclass
class Cached:
    """A server with a page cache."""

    client: httpx.Client
    address: tuple[str, int]
    cache: PageCache

    def get(self, path: str, *headers: tuple[str, str], method: str = "GET") -> httpx.Response:
        """With these header fields besides Host, and no others."""
        request = httpx.Request(
            method,
            f"http://{self.address[0]}:{self.address[1]}{path}",
            headers=[("host", "testserver"), *headers],
        )
        return self.client.send(request)


@contextmanager
def cached(
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    *,
    memory: bool = True,
    cache: PageCache | None = None,
) -> Iterator[Cached]:
    """A server with a worker that hears of changes; with `cache`, one that another server had."""
    cache = cache or PageCache(application, memory=memory)
    stack = Lifespan(AllowedHosts(Head(cache)), cache.open_tiers)
    with serve(stack, monkeypatch, lifespan="on") as serving:
        give_up = time.monotonic() + DEADLINE
        while not (changes._publisher and changes._publisher.subscribed):
            assert time.monotonic() < give_up
            time.sleep(0.001)
        yield Cached(serving.client, serving.address, cache)


class Subscriber:
    """The messages of a channel, each as the set of its tags."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def next(self) -> set[str]:
        message = self.channel.get_message(timeout=DEADLINE)
        assert message, "no message"
        tags = {name for name in orjson.loads(message["data"]) if not name.startswith(CONFIRM)}
        return self.next() if tags == {EVERYTHING} else tags  # a worker has met this Redis for the first time

    def no_more(self) -> bool:
        """Whether no other message was published by now."""
        self.channel.ping()  # answered after all messages before
        message = self.channel.get_message(timeout=DEADLINE)
        return bool(message and message["type"] == "pong")


def counts(policy: Policy) -> Counter[str]:
    """The policy's counts, by `outcome tier`."""
    return Counter({" ".join(pair): number for pair, number in policy.counts.items()})
