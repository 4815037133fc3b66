"""GCRA over the real Valkey, and by a worker alone: exact, atomic, bounded."""

import asyncio
import logging

import pytest

from ops.redis import rates
from ops.redis.client import Client, Unavailable, open_client
from ops.redis.rates import Limiter, RateLimit, Verdict
from tests.api.cache.harness import Clock

SLOW = RateLimit(5, 3600)  # nothing comes back while a test runs


@pytest.fixture
def limiter(client: Client, key: str) -> Limiter:
    return Limiter(client, key)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(rates, "time", made)
    return made


def lose_redis(limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(*_arguments: object) -> None:
        raise Unavailable

    monkeypatch.setattr(limiter, "_ask", ask)


async def test_the_quota_and_no_more(limiter: Limiter, client: Client, key: str) -> None:
    verdicts = [await limiter.take(SLOW, "a") for _ in range(7)]
    assert [v.taken for v in verdicts] == [True] * 5 + [False] * 2
    assert [v.remaining for v in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert [round(v.reset, -1) for v in verdicts] == [720, 1440, 2160, 2880, 3600, 720, 720]
    assert (await limiter.take(SLOW, "b")).taken
    [expiry] = await client.run(("PTTL", f"{key}:a"))
    assert 3590_000 < expiry <= 3600_000
    await client.run(("DEL", f"{key}:a", f"{key}:b"))


@pytest.mark.parametrize("quota", [1, 3, 6, 7, 99])
async def test_all_of_a_quota_is_there_for_numbers_that_do_not_divide(
    limiter: Limiter, client: Client, key: str, quota: int
) -> None:
    limit = RateLimit(quota, 3600)
    verdicts = await asyncio.gather(*[limiter.take(limit, "a") for _ in range(quota + 5)])
    assert sum(v.taken for v in verdicts) == quota
    assert {v.remaining for v in verdicts} == {*range(quota)}
    await client.run(("DEL", f"{key}:a"))


async def test_two_workers_share_a_quota_also_after_a_restart_of_redis(
    limiter: Limiter, client: Client, key: str
) -> None:
    async with open_client() as second:
        limiters = [limiter, Limiter(second, key)]
        verdicts = await asyncio.gather(*[limiters[n % 2].take(RateLimit(20, 3600), "a") for n in range(50)])
        assert sum(v.taken for v in verdicts) == 20
        await client.run(("SCRIPT", "FLUSH"), ("DEL", f"{key}:a"))
        assert (await Limiter(second, key).take(SLOW, "a")).taken
    await client.run(("DEL", f"{key}:a"))


async def test_a_quota_that_was_longer_before_bars_nobody(limiter: Limiter, client: Client, key: str) -> None:
    """Nor one that was counted by a clock which was ahead."""
    assert (await limiter.take(RateLimit(1, 3600), "a")).taken
    verdict = await limiter.take(RateLimit(100, 1), "a")
    assert (verdict.taken, verdict.reset) == (False, 1)  # it counts as spent, no more
    deadline = asyncio.get_running_loop().time() + 5
    while not (await limiter.take(RateLimit(100, 1), "a")).taken:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)
    await client.run(("DEL", f"{key}:a"))


async def test_the_quota_comes_back_evenly(limiter: Limiter, client: Client, key: str) -> None:
    limit = RateLimit(2, 0.4)
    for _ in range(2):
        assert (await limiter.take(limit, "a")).taken
    assert await limiter.take(limit, "a") == Verdict(taken=False, remaining=0, reset=1)
    deadline = asyncio.get_running_loop().time() + 5
    began = asyncio.get_running_loop().time()
    while not (await limiter.take(limit, "a")).taken:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)
    assert asyncio.get_running_loop().time() - began > 0.1
    await client.run(("DEL", f"{key}:a"))


async def test_a_refused_client_costs_redis_nothing(
    limiter: Limiter, client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        await limiter.take(SLOW, "a")
    await client.run(("DEL", f"{key}:a"))
    monkeypatch.setattr(limiter, "_ask", None)
    assert not (await limiter.take(SLOW, "a")).taken


async def test_a_worker_alone_counts_the_same(
    limiter: Limiter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_redis(limiter, monkeypatch)
    verdicts = [await limiter.take(SLOW, "a") for _ in range(7)]
    assert [(v.taken, v.remaining) for v in verdicts] == [(True, n) for n in (4, 3, 2, 1, 0)] + 2 * [
        (False, 0)
    ]
    clock.ahead += 719
    assert not (await limiter.take(SLOW, "a")).taken
    clock.ahead += 2
    assert [(await limiter.take(SLOW, "a")).taken for _ in range(2)] == [True, False]
    clock.ahead += 10_000
    assert sum([(await limiter.take(SLOW, "a")).taken for _ in range(9)]) == 5


async def test_a_workers_memory_is_bounded(
    limiter: Limiter, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_redis(limiter, monkeypatch)
    monkeypatch.setattr(rates, "MAX_CLIENTS", 10)
    for number in range(50):
        for _ in range(6):
            await limiter.take(SLOW, f"client {number}")
    assert (len(limiter._local), len(limiter._refused)) == (10, 10)
    assert not (await limiter.take(SLOW, "client 49")).taken
    clock.ahead += 5000
    await limiter.take(SLOW, "another")
    assert len(limiter._local) == 1  # the others are whole again


async def test_a_worker_counts_on_where_redis_stopped(
    limiter: Limiter, client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await limiter.take(SLOW, "a")
    lose_redis(limiter, monkeypatch)
    assert [(await limiter.take(SLOW, "a")).remaining for _ in range(3)] == [1, 0, 0]
    await client.run(("DEL", f"{key}:a"))


async def test_a_redis_that_takes_no_scripts(
    limiter: Limiter, client: Client, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    await client.run(("RPUSH", f"{key}:a", "a"))  # an error in the script
    with caplog.at_level(logging.WARNING, "ops.redis.rates"):
        assert [(await limiter.take(SLOW, "a")).taken for _ in range(6)] == [True] * 5 + [False]
    assert caplog.text.count("counts rate limits for itself") == 1
    await client.run(("DEL", f"{key}:a"))
