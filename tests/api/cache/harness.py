"""The cache in pieces: an application whose answers a test decides, a finder over the real Valkey, a server."""

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
from api.cache.entry import Entry
from api.cache.finding import Finder
from api.cache.layer import PageCache
from api.cache.memory import Memory
from api.cache.policy import Dependency, Policy
from api.cache.rendering import render
from api.cache.shared import EVERYTHING, Shared, Target
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.protocol import Application, Fields, Receive, Scope, Send
from ops.asgi.wire import Ready
from ops.redis.client import open_client
from products.models import Category, Product
from tests.ops.asgi.server import serve

JSON: Fields = [(b"content-type", b"application/json")]
DEADLINE = 10.0
FIRST_EXTRA = 2_000_000  # ids from here on are a test's own
SCOPE: Scope = {
    "type": "http",
    "method": "GET",
    "path": "/page",
    "raw_path": b"/page",
    "query_string": b"",
    "root_path": "",
    "headers": [],
}


class Clock:
    """The time module, `ahead` of the real one; `skew` moves only what the calendar says."""

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
        self.released = asyncio.Event()  # what an answer waits for
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
    return Policy(name, str, fresh, stale, **{"depends_on": depends_on} | options)


def target(key: str = "page?", **options: Any) -> Target:
    made = policy(**options)
    return Target(made, key, made.tags({}))


def entry(body: bytes = b"{}", fields: Fields = JSON, **options: Any) -> Entry:
    known: dict[str, Any] = {"created": time.time(), "cost": 0.001, "versions": {"products.product": b"1"}}
    made = options.pop("policy", None) or policy()
    return Entry(made, options.pop("key", "page?"), fields, body, **known | options)


@dataclass
class Worker:
    """A worker's part of the cache."""

    origin: Origin
    finder: Finder
    wire: dict[bytes, Ready]

    @property
    def memory(self) -> Memory:
        assert self.finder.memory is not None
        return self.finder.memory

    async def get(self, target: Target) -> tuple[bytes, str, str]:
        """As the layer does: body, outcome, tier."""
        if recalled := self.finder.recall(target, SCOPE):
            return recalled[0].body, recalled[1], "l1"
        found = await self.finder.find(target, SCOPE)
        answer = found.entry or found.answer
        assert answer
        return answer.body, found.outcome, found.tier

    async def settle(self) -> None:
        """Wait until nothing is done in the background."""
        async with asyncio.timeout(DEADLINE):
            while self.finder._tasks:
                await asyncio.wait([*self.finder._tasks])


@asynccontextmanager
async def worker(origin: Origin | None = None, *, memory: bool = True) -> AsyncIterator[Worker]:
    application = origin or Origin()
    ready: dict[bytes, Ready] = {}
    async with open_client() as client:
        shared = Shared(client, settings.CACHE_PREFIX)
        kept = Memory(ready) if memory else None
        finder = Finder(lambda scope: render(application, scope), kept, shared)
        try:
            yield Worker(application, finder, ready)
        finally:
            await finder.close()


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
    """A server whose worker hears of changes; with `cache`, one that another server had."""
    cache = cache or PageCache(application, memory=memory)
    stack = Lifespan(AllowedHosts(Head(cache)), cache.open_tiers)
    with serve(stack, monkeypatch, lifespan="on") as serving:
        give_up = time.monotonic() + DEADLINE
        while not (changes._announcer and changes._announcer.subscribed):
            assert time.monotonic() < give_up
            time.sleep(0.001)
        yield Cached(serving.client, serving.address, cache)


class Told:
    """The messages of a channel, each as the set of its tags."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel

    def next(self) -> set[str]:
        message = self.channel.get_message(timeout=DEADLINE)
        assert message, "nothing was told"
        tags = {*orjson.loads(message["data"])}
        return self.next() if tags == {EVERYTHING} else tags  # a worker has met this Redis for the first time

    def no_more(self) -> bool:
        """Whether nothing was told besides what was asked for, as far as what is done is concerned."""
        self.channel.ping()  # answered after what was sent before
        message = self.channel.get_message(timeout=DEADLINE)
        return bool(message and message["type"] == "pong")


def counts(policy: Policy) -> Counter[str]:
    """What the policy has counted, as `outcome tier`."""
    return Counter({" ".join(pair): number for pair, number in policy.counts.items()})
