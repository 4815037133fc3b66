"""Fixtures of the page cache's tests: a corner of the real Valkey, a clock to be moved, pages to be cached."""

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.conf import settings as configured
from django.db import connection, connections
from pytest_django import Settings

from api.cache.shared import EVERYTHING
from ops.asgi.handler import LeanASGIHandler
from ops.gunicorn import wire
from tests.api.cache import views
from tests.api.cache.harness import DEADLINE, FIRST_EXTRA, Cached, Clock, Subscriber, cached
from tests.loops import pytest_pyfunc_call, runner

__all__ = ["pytest_pyfunc_call", "runner"]


@pytest.fixture
def prefix(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of all keys of the test, which are gone afterwards. Redis is given time: the machine is busy with tests."""
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 5.0)
    settings.CACHE_PREFIX = f"test-{secrets.token_hex(6)}"
    yield settings.CACHE_PREFIX
    with redis.Redis.from_url(configured.REDIS_URL) as client:
        for key in client.scan_iter(f"{settings.CACHE_PREFIX}:*", count=10_000):
            client.delete(key)


@pytest.fixture
def valkey(prefix: str) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(configured.REDIS_URL) as client:
        yield client


@pytest.fixture
def keys(valkey: "redis.Redis", prefix: str) -> Callable[[], set[str]]:
    """The test's keys in Redis, without prefix and release, and without the ones that every worker leaves there."""

    def keys() -> set[str]:
        found = (
            key.decode().removeprefix(f"{prefix}:") for key in valkey.scan_iter(f"{prefix}:*", count=10_000)
        )
        own = {re.sub("^(entry|lock):[^:]+:", r"\1:", key) for key in found}
        return own - {"server", f"tag:{EVERYTHING}"}

    return keys


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which the cache goes."""
    clock = Clock()
    for module in ("api.cache.entry", "api.cache.flights", "api.cache.lookup", "api.cache.layer"):
        monkeypatch.setattr(f"{module}.time", clock)
    monkeypatch.setattr("ops.gunicorn.wire.monotonic", clock.monotonic)
    return clock


@pytest.fixture
def pages(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cached]:
    """The views of this directory behind the cache, behind a socket."""
    settings.ROOT_URLCONF = "tests.api.cache.views"
    views.reset()
    with cached(LeanASGIHandler(), monkeypatch) as serving:
        yield serving
    assert not wire.ready


@pytest.fixture
def subscriber(prefix: str, valkey: "redis.Redis", settings: Settings) -> Iterator[Subscriber]:
    """The messages of changes to other processes. Django's cache is given time, too."""
    location = f"{configured.REDIS_URL}&socket_timeout=5&socket_connect_timeout=5"
    settings.CACHES = {"default": {**configured.CACHES["default"], "LOCATION": [location]}}
    client: Any = valkey
    with client.pubsub() as channel:
        channel.subscribe(f"{prefix}:changed")
        assert channel.get_message(timeout=DEADLINE)["type"] == "subscribe"
        yield Subscriber(channel)


@pytest.fixture
def committing(db: None) -> Iterator[None]:
    """A connection beside that of the test's transaction; rows added through it are deleted afterwards."""
    surrounded = connections["default"]
    connections["default"] = connections.create_connection("default")
    try:
        yield
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM shop_product WHERE id >= %s", [FIRST_EXTRA])
            cursor.execute("DELETE FROM shop_category WHERE slug LIKE 'test-%%'")
    finally:
        connection.close()
        connections["default"] = surrounded
