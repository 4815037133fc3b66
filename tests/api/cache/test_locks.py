"""A lock lives as long as its page may take, and one that nobody holds any more is given back.

The first worker of a test has a way to Redis that the test can harm; the second one asks for the same page.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import uvloop
from django.conf import settings as configured
from pytest_django import Settings

from api.cache.locks import FACTOR, MIN_SECONDS, Durations
from api.cache.lookup import GIVE_BACK_SECONDS
from api.cache.policy import Target
from tests.api.cache.harness import DEADLINE, Clock, Worker, target, worker
from tests.e2e.cache.proxy import Network, Way, network
from tests.loops import until

pytestmark = [
    pytest.mark.usefixtures("runner", "prefix"),
    pytest.mark.parametrize("runner", [uvloop.new_event_loop], indirect=True, ids=["uvloop"]),
]

COST = 60.0
TIMEOUT_SECONDS, LATE_SECONDS = 0.1, 0.2  # of the harmed worker, and of its replies
EXPENSIVE = target(cost=COST)
CONFIGURED = configured.REDIS_URL


@pytest.fixture(scope="module")
def links() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def way(links: Network, settings: Settings, prefix: str) -> Iterator[Way]:
    """That of workers that are made from now on."""
    made = links.way(Path(urlsplit(configured.REDIS_URL).path))
    settings.REDIS_URL = f"redis://127.0.0.1:{made.port}/0"
    yield made
    made.clear()


@pytest.fixture
def lock(prefix: str) -> str:
    return f"{prefix}:lock:release:page?"


@asynccontextmanager
async def healthy(settings: Settings) -> AsyncIterator[Worker]:
    """A worker with a way of its own."""
    harmed, settings.REDIS_URL = settings.REDIS_URL, CONFIGURED
    async with worker() as made:
        settings.REDIS_URL = harmed
        yield made


async def compute(worker: Worker, clock: Clock, seconds: float, page: Target = EXPENSIVE) -> None:
    """Let it compute a page for so long."""
    worker.origin.asked.clear()
    worker.origin.released.clear()
    asked = asyncio.create_task(worker.get(page))
    await worker.origin.asked.wait()
    clock.ahead += seconds
    worker.origin.released.set()
    assert (await asked)[1] == "miss"
    await worker.settle()


async def invalidate(*workers: Worker) -> None:
    for each in workers:
        each.lookup.invalidate(["shop.product"])
    await workers[0].lookup.shared.invalidate(["shop.product"])


async def locked_for(worker: Worker, valkey: Any, lock: str, page: Target = EXPENSIVE) -> float:
    """The seconds that the lock of its next computation lives, which then ends."""
    worker.origin.asked.clear()
    worker.origin.released.clear()
    asked = asyncio.create_task(worker.get(page))
    await worker.origin.asked.wait()
    lives = valkey.pttl(lock) / 1000
    worker.origin.released.set()
    await asked
    await worker.settle()
    assert not valkey.exists(lock)
    return float(lives)


async def test_a_lock_lives_as_long_as_the_page_may_take(
    valkey: "redis.Redis", lock: str, clock: Clock
) -> None:
    """As another worker has measured it, too; and as long as the cost at most."""
    async with worker() as one, worker() as two:
        assert COST - 2 < await locked_for(one, valkey, lock) <= COST  # nobody knows
        await invalidate(one, two)
        await compute(one, clock, 2.0)
        assert (await two.get(EXPENSIVE))[1:] == ("hit", "l2")
        for each in (one, two):
            await invalidate(one, two)
            assert FACTOR * 2.0 - 1 < await locked_for(each, valkey, lock) < FACTOR * 2.0 + 1
        await invalidate(one, two)
        async with worker() as three:  # it finds an entry that is not valid any more
            assert 0 < await locked_for(three, valkey, lock) < FACTOR * 2.0 + 1
        await invalidate(one, two)
        assert 0 < await locked_for(one, valkey, lock, target(cost=1.0)) <= 1.0


def test_what_is_known_of_a_page() -> None:
    durations = Durations()
    cheap = target("cheap?")
    assert durations.lock_seconds(EXPENSIVE) == COST
    assert durations.lacks(EXPENSIVE)
    assert not durations.lacks(cheap)
    durations.learn(EXPENSIVE, 8.0)
    assert durations.lock_seconds(EXPENSIVE) == FACTOR * 8.0
    durations.learn(EXPENSIVE, 1.0)  # it knows already
    assert durations.lock_seconds(EXPENSIVE) == FACTOR * 8.0
    durations.add(EXPENSIVE, 1.0)
    assert durations.lock_seconds(EXPENSIVE) == FACTOR * 4.0
    durations.add(EXPENSIVE, 40.0)
    assert durations.lock_seconds(EXPENSIVE) == COST
    for _ in range(20):
        durations.add(EXPENSIVE, 0.001)
    assert durations.lock_seconds(EXPENSIVE) == MIN_SECONDS


# --- Locks that nobody holds ----------------------------------------------------------------------


async def waits(other: Worker) -> float:
    """The seconds until another worker has the page."""
    began = time.monotonic()
    assert (await other.get(EXPENSIVE))[0]
    return time.monotonic() - began


def harm(
    one: Worker, way: Way, monkeypatch: pytest.MonkeyPatch, *, for_ever: bool = False, **weather: object
) -> None:
    """Let the weather change just before the worker asks for the lock, and until that has failed.

    By then it has looked the entry up.
    """
    reserve = one.lookup.shared.reserve
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", TIMEOUT_SECONDS)

    async def turn_and_reserve(page: Target, token: str) -> Any:
        way.turn(**weather)
        try:
            return await reserve(page, token)
        finally:
            if not for_ever:
                way.clear()

    monkeypatch.setattr(one.lookup.shared, "reserve", turn_and_reserve)


async def test_a_lock_whose_reply_came_too_late(
    valkey: "redis.Redis", lock: str, way: Way, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker computes without it, and gives it back as soon as the reply has come."""
    async with worker() as one, healthy(settings) as other:
        harm(one, way, monkeypatch, delay=LATE_SECONDS)
        one.origin.released.clear()
        asked = asyncio.create_task(one.get(EXPENSIVE))
        await one.origin.asked.wait()
        assert valkey.pttl(lock) > 0
        await until(lambda: not valkey.exists(lock), LATE_SECONDS + 5)
        assert await waits(other) < COST / 10
        one.origin.released.set()
        assert (await asked)[1] == "miss"
        assert not one.lookup.shared.client.breaker.is_open


async def test_a_change_while_a_lock_is_asked_for_ends_the_lock(
    valkey: "redis.Redis", lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is computed under it will not be kept, so that nobody has to wait for it."""
    async with worker() as one:
        reserve = one.lookup.shared.reserve

        async def reserve_and_change(page: Target, token: str) -> Any:
            reservation = await reserve(page, token)
            one.lookup.invalidate(["shop.product"])
            return reservation

        monkeypatch.setattr(one.lookup.shared, "reserve", reserve_and_change)
        one.origin.released.clear()
        asked = asyncio.create_task(one.get(EXPENSIVE))
        await one.origin.asked.wait()
        await until(lambda: not valkey.exists(lock))
        one.origin.released.set()
        await asked


async def test_a_late_reply_takes_no_lock_from_another(
    valkey: "redis.Redis", lock: str, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.set(lock, "another worker", px=int(COST * 1000))
    async with worker() as one:
        harm(one, way, monkeypatch, delay=LATE_SECONDS)
        assert (await one.get(EXPENSIVE))[1] == "miss"
        await one.settle()
        assert valkey.get(lock) == b"another worker"


async def test_a_lock_whose_reply_never_came(
    valkey: "redis.Redis", lock: str, way: Way, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given back once Redis is back."""
    async with worker() as one, healthy(settings) as other:
        harm(one, way, monkeypatch, for_ever=True, held=True)
        assert (await one.get(EXPENSIVE))[1] == "miss"
        await until(lambda: one.lookup.shared.client.breaker.is_open)
        assert valkey.pttl(lock) > 0
        way.clear()
        await until(lambda: not valkey.exists(lock), GIVE_BACK_SECONDS + 2)
        assert await waits(other) < COST / 10


@pytest.mark.parametrize("status", [200, 404])
async def test_a_lock_whose_release_redis_did_not_take(
    valkey: "redis.Redis", lock: str, way: Way, settings: Settings, status: int
) -> None:
    """Neither with the entry nor by itself."""
    async with worker() as one, healthy(settings) as other:
        one.origin.status = status
        one.origin.released.clear()
        asked = asyncio.create_task(one.get(EXPENSIVE))
        await one.origin.asked.wait()
        way.turn(door="refusing")
        await until(lambda: one.lookup.shared.client.breaker.is_open)
        one.origin.released.set()
        assert (await asked)[1] == "miss"
        assert valkey.pttl(lock) > 0
        way.clear()
        await until(lambda: not valkey.exists(lock), GIVE_BACK_SECONDS + 2)
        assert await waits(other) < COST / 10


async def test_a_worker_that_stops_without_redis_does_not_wait_for_it(way: Way) -> None:
    async with worker() as one:
        one.origin.released.clear()
        asked = asyncio.create_task(one.get(EXPENSIVE))
        await one.origin.asked.wait()
        way.turn(door="refusing")
        one.origin.released.set()
        await asked
        began = time.monotonic()
    assert time.monotonic() - began < DEADLINE / 2
    assert len(asyncio.all_tasks()) == 1
