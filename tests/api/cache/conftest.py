"""What the tests of the page cache stand on: a corner of the real Valkey, a clock to be moved, pages to be cached."""

import secrets
from collections.abc import Callable, Iterator

import pytest
import redis
from django.conf import settings as configured
from pytest_django import Settings

from ops.asgi import wire
from ops.asgi.handler import LeanASGIHandler
from tests.api.cache import views
from tests.api.cache.harness import Cached, Clock, cached
from tests.loops import pytest_pyfunc_call, runner

__all__ = ["pytest_pyfunc_call", "runner"]


@pytest.fixture
def prefix(settings: Settings) -> Iterator[str]:
    """Of all keys of the test, which are gone afterwards."""
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
    """What of the test is in Redis now, without the prefix."""

    def keys() -> set[str]:
        found = valkey.scan_iter(f"{prefix}:*", count=10_000)
        return {key.decode().removeprefix(f"{prefix}:") for key in found}

    return keys


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which the cache goes."""
    clock = Clock()
    for module in ("api.cache.entry", "api.cache.finding", "ops.asgi.wire"):
        monkeypatch.setattr(f"{module}.time", clock)
    return clock


@pytest.fixture
def pages(prefix: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cached]:
    """The views of this directory behind the cache, behind a socket."""
    settings.ROOT_URLCONF = "tests.api.cache.views"
    views.reset()
    with cached(LeanASGIHandler(), monkeypatch) as serving:
        yield serving
    assert not wire.ready
