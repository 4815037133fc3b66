"""Answers that go by their age: no change, no Redis and no computation makes a request wait but the first."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import uvloop
from pytest_django import Settings

from api.cache.lookup import GRACE_SECONDS, TRUST_SECONDS, Pending
from api.cache.policy import POLICIES, Endpoint, Policy, Target
from tests.api.cache.harness import Clock, Origin, policy, target, worker
from tests.loops import until

FRESH, STALE, COST = 10.0, 3600.0, 20.0

pytestmark = [
    pytest.mark.usefixtures("runner", "prefix"),
    pytest.mark.parametrize("runner", [uvloop.new_event_loop], indirect=True, ids=["uvloop"]),
]


def stats(**options: Any) -> Target:
    return target("stats?", depends_on=(), fresh=FRESH, stale=STALE, cost=COST, **options)


@pytest.fixture(params=["redis", "no redis"])
def redis_or_not(request: pytest.FixtureRequest, prefix: str, settings: Settings) -> Iterator[None]:
    url = settings.REDIS_URL
    if request.param == "no redis":
        settings.REDIS_URL = "redis://127.0.0.1:1"
    yield
    settings.REDIS_URL = url


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.cache.lookup.PATIENCE_SECONDS", 0.05)


def test_the_policy() -> None:
    assert stats().policy.goes_by_age
    assert stats().tags == ()
    assert not target().policy.goes_by_age


@pytest.mark.usefixtures("redis_or_not")
async def test_no_change_drops_it(clock: Clock) -> None:
    async with worker() as one:
        assert await one.get(stats()) == (b"answer 1", "miss", "none")
        await one.settle()
        one.lookup.invalidate(["shop.product", "*"])
        one.lookup.distrust()
        clock.ahead += FRESH - 1
        for _ in range(3):
            assert await one.get(stats()) == (b"answer 1", "hit", "l1")
        await one.settle()
        assert one.origin.calls == 1


async def test_nothing_that_is_missed_meanwhile_drops_it() -> None:
    """A computation goes on through a Redis that goes and comes back, and its answer is kept."""
    async with worker() as one:
        one.origin.released.clear()
        asked = asyncio.ensure_future(one.get(stats()))
        await one.origin.asked.wait()
        one.lookup.distrust()
        one.lookup.invalidate(["shop.product", "*"])
        one.origin.released.set()
        assert await asked == (b"answer 1", "miss", "none")
        await one.settle()
        assert await one.get(stats()) == (b"answer 1", "hit", "l1")


async def test_redis_may_lose_it(valkey: "redis.Redis", prefix: str, clock: Clock) -> None:
    async with worker() as one:
        await one.get(stats())
        await one.settle()
        valkey.delete(*valkey.keys(f"{prefix}:*"))
        clock.ahead += FRESH + 1
        assert await one.get(stats()) == (b"answer 1", "stale", "l1")
        await one.settle()
        assert await one.get(stats()) == (b"answer 2", "hit", "l1")


@pytest.mark.usefixtures("redis_or_not")
async def test_a_stale_one_is_sent_while_the_next_is_computed(clock: Clock) -> None:
    """At once, however long that takes, and the computation is one."""
    async with worker() as one:
        await one.get(stats())
        await one.settle()
        one.origin.released.clear()
        for ahead in (FRESH + 1, TRUST_SECONDS + GRACE_SECONDS, COST / 4):
            clock.ahead += ahead
            answers = await asyncio.gather(*(one.get(stats()) for _ in range(20)))
            assert answers == [(b"answer 1", "stale", "l1")] * 20
            await until(lambda: one.origin.calls == 2)
        one.origin.released.set()
        await one.settle()
        assert await one.get(stats()) == (b"answer 2", "hit", "l1")
        assert one.origin.calls == 2


async def test_a_failed_attempt_is_not_repeated_at_once_without_memory(clock: Clock) -> None:
    """PAGE_CACHE=l2: the next one comes after `cost` seconds, as with memory."""
    origin = Origin()
    async with worker(origin, memory=False) as one:
        await one.get(stats())
        await one.settle()
        clock.ahead += FRESH + 1
        origin.error = OSError("it fails")
        for _ in range(5):
            assert (await one.get(stats()))[1] == "stale"
            await one.settle()
        assert origin.calls == 2
        clock.ahead += COST + 1
        assert (await one.get(stats()))[1] == "stale"
        await one.settle()
        assert origin.calls == 3


async def test_one_worker_computes_the_next_one(clock: Clock) -> None:
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two:
        await one.get(stats())
        await one.settle()
        assert await two.get(stats()) == (b"answer 1", "hit", "l2")
        clock.ahead += FRESH + 1
        for each in (one, two, one, two):
            assert await each.get(stats()) == (b"answer 1", "stale", "l1")
        await one.settle()
        await two.settle()
        assert origin.calls == 2
        assert [await each.get(stats()) for each in (one, two)] == [(b"answer 2", "hit", "l1")] * 2


@pytest.mark.usefixtures("redis_or_not")
async def test_after_that_a_request_waits(clock: Clock) -> None:
    async with worker() as one:
        await one.get(stats())
        await one.settle()
        clock.ahead += FRESH + STALE + 1
        assert await one.get(stats()) == (b"answer 2", "miss", "none")


@pytest.mark.usefixtures("redis_or_not", "impatient")
async def test_the_first_takes_longer_than_a_request_waits(clock: Clock) -> None:
    """It is computed once all the same, also for a request that comes when a page would be computed again."""
    async with worker() as one:
        one.origin.released.clear()
        for _ in range(2):
            asked = [one.get(stats()) for _ in range(3)]
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Pending] * 3
            clock.ahead += TRUST_SECONDS + GRACE_SECONDS
        one.origin.released.set()
        await one.settle()
        assert await one.get(stats()) == (b"answer 1", "hit", "l1")
        assert one.origin.calls == 1


@pytest.mark.usefixtures("impatient")
async def test_other_workers_do_not_compute_the_first_again() -> None:
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two:
        origin.released.clear()
        for each in (one, two, two):
            with pytest.raises(Pending):
                await each.get(stats())
        origin.released.set()
        await one.settle()
        await two.settle()
        assert [await each.get(stats()) for each in (one, two)] == [(b"answer 1", "hit", "l1")] * 2
        assert origin.calls == 1


@pytest.mark.usefixtures("redis_or_not")
async def test_a_request_that_leaves_ends_nothing() -> None:
    async with worker() as one:
        one.origin.released.clear()
        first = asyncio.ensure_future(one.get(stats()))
        await one.origin.asked.wait()
        first.cancel()
        await asyncio.wait([first])
        one.origin.released.set()
        assert (await one.get(stats()))[0] == b"answer 1"
        assert one.origin.calls == 1


async def test_what_fails_is_not_tried_all_the_time(clock: Clock) -> None:
    async with worker() as one:
        await one.get(stats())
        await one.settle()
        one.origin.status = 503
        clock.ahead += FRESH + 1
        for ahead, calls in ((0.0, 2), (TRUST_SECONDS + GRACE_SECONDS, 2), (COST, 3)):
            clock.ahead += ahead
            for _ in range(2):
                assert (await one.get(stats()))[:2] == (b"answer 1", "stale")
                await one.settle()
            assert one.origin.calls == calls


async def test_the_first_one_fails() -> None:
    async with worker() as one:
        one.origin.status = 503
        assert await one.get(stats()) == (b"answer 1", "miss", "none")
        one.origin.error = ValueError("a message")
        with pytest.raises(ValueError, match="a message"):
            await one.get(stats())


async def test_tags_of_others_live_no_longer_for_it(
    valkey: "redis.Redis", prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = Policy("long", Endpoint("long", None), 60, 10.0**6, ())
    monkeypatch.setitem(POLICIES, "long", long)
    longest = max(each.fresh + each.stale for each in POLICIES.values() if not each.goes_by_age)
    async with worker() as one:
        await one.get(target())
        await one.settle()
        life = valkey.ttl(f"{prefix}:tag:shop.product")
        assert isinstance(life, int)
        assert life <= max(longest, policy().fresh + policy().stale) + 60
