"""What the tests of the page cache stand on: a corner of the real Valkey, a clock to be moved, pages to be cached."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.conf import settings as configured
from django.db import connection, connections
from pytest_django import Settings

from api.cache.shared import EVERYTHING
from ops.asgi import wire
from ops.asgi.handler import LeanASGIHandler
from tests.api.cache import views
from tests.api.cache.harness import DEADLINE, FIRST_EXTRA, Cached, Clock, Told, cached
from tests.loops import pytest_pyfunc_call, runner

__all__ = ["pytest_pyfunc_call", "runner"]


@pytest.fixture
def prefix(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of all keys of the test, which are gone afterwards. Redis is given time: the machine is busy with tests."""
    monkeypatch.setattr("ops.redis.client.PATIENCE", 5.0)
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
    """What of the test is in Redis now, without the prefix and what every worker leaves there."""

    def keys() -> set[str]:
        found = valkey.scan_iter(f"{prefix}:*", count=10_000)
        return {key.decode().removeprefix(f"{prefix}:") for key in found} - {"server", f"tag:{EVERYTHING}"}

    return keys


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which the cache goes."""
    clock = Clock()
    for module in ("api.cache.entry", "api.cache.finding"):
        monkeypatch.setattr(f"{module}.time", clock)
    monkeypatch.setattr("ops.asgi.wire.monotonic", clock.monotonic)
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
def told(prefix: str, valkey: "redis.Redis", settings: Settings) -> Iterator[Told]:
    """What other processes are told of changes. Django's cache is given time, too."""
    location = f"{configured.REDIS_URL}&socket_timeout=5&socket_connect_timeout=5"
    settings.CACHES = {"default": {**configured.CACHES["default"], "LOCATION": [location]}}
    client: Any = valkey
    with client.pubsub() as channel:
        channel.subscribe(f"{prefix}:changed")
        assert channel.get_message(timeout=DEADLINE)["type"] == "subscribe"
        yield Told(channel)


@pytest.fixture
def committing(db: None) -> Iterator[None]:
    """A connection beside that of the test's transaction; what is added through it is gone afterwards."""
    surrounded = connections["default"]
    connections["default"] = connections.create_connection("default")
    try:
        yield
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM products_product WHERE id >= %s", [FIRST_EXTRA])
            cursor.execute("DELETE FROM products_category WHERE slug LIKE 'test-%%'")
    finally:
        connection.close()
        connections["default"] = surrounded
