"""A worker that is killed takes its own connections with it, and nothing else."""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api.cache.locks import FACTOR
from tests.chaos import Figures
from tests.e2e.cache.client import at_once, load, tell
from tests.e2e.cache.fleet import PREFIX, Fleet, Member, until
from tests.e2e.cache.urls import COST

PAGES = [f"/api/products/{number}" for number in range(400, 430)]
LASTING = "/tests/lasting/5"
LOCKS = f"{PREFIX}:lock:*"


def compute_slowly(workers: Fleet, member: Member, page: str) -> float:
    """Let a page take more than 0.3 s; returns how long its request took."""
    redis: Any = workers.valkey.client
    workers.postgres.turn(held=True)
    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(member.get, page)
        until(lambda: redis.keys(LOCKS), "the first computation")
        time.sleep(0.3)
        workers.postgres.turn(held=False)
        assert asked.result().is_success
    return time.monotonic() - began


@pytest.mark.chaos("worker SIGKILL")
def test_the_others_go_on(workers: Fleet, crew: Member, figures: Figures) -> None:
    """Only requests that it has fail; its successor is there within 2 s; all others are answered, rightly."""

    async def scenario() -> None:
        async with load([crew.address] * 16, PAGES, 0.005) as answered:
            for _ in range(3):
                until(lambda: len(crew.workers()) == 4, "four workers")
                await asyncio.sleep(0.4)
                os.kill(crew.workers()[0], signal.SIGKILL)
            began, everybody = time.monotonic(), workers.listeners + 4
            await asyncio.to_thread(until, lambda: workers.subscribers() < everybody, "its death")
            await asyncio.to_thread(until, lambda: workers.subscribers() == everybody, "the successors")
            figures("successors are ready after", time.monotonic() - began, "s", most=2)
        assert {answer.status for answer in answered.answers} == {200}
        assert len(answered.errors) <= 16 * 3  # the connections to the dead
        figures("requests that failed", len(answered.errors), "of 16 connections, at 3 SIGKILLs", most=16 * 3)
        for answer in answered.answers:
            assert answer.body.startswith(b'{"id":%b,' % answer.path.rpartition("/")[2].encode())

    asyncio.run(scenario())
    answers = asyncio.run(at_once([crew.address], "/api/products?limit=30", 200))
    assert {answer.status for answer in answers} == {200}


def test_a_page_whose_holder_was_killed_is_waited_for_as_long_as_it_takes(workers: Fleet) -> None:
    """Three times what it took last, not the longest time that its endpoint declares."""
    holder, other, *_ = workers.members
    redis: Any = workers.valkey.client
    page = "/tests/expensive?limit=51"
    with ThreadPoolExecutor() as threads:
        took = compute_slowly(workers, holder, page)
        assert other.get(page).is_success
        assert holder.post("/tests/native/1").is_success
        workers.postgres.turn(held=True)
        lost = threads.submit(holder.get, page)
        until(lambda: redis.keys(LOCKS), "the lock")
        [lock] = redis.keys(LOCKS)
        left = redis.pttl(lock) / 1000
        holder.kill_workers()
        workers.postgres.turn(held=False)
        began = time.monotonic()
        assert other.get(page).is_success
        waited = time.monotonic() - began
        assert isinstance(lost.exception(), httpx.HTTPError)
    assert 0.3 < left <= min(FACTOR * took, COST)
    assert waited < left + 1.0
    tell(f"it took {took:.2f} s, its lock was left for {left:.2f} s, the next request took {waited:.2f} s")


def test_no_lock_outlives_its_time(workers: Fleet) -> None:
    """The worker dies while it refreshes a page; the others send the stale one meanwhile, and refresh it later."""
    holder, other, *_ = workers.members
    redis: Any = workers.valkey.client
    compute_slowly(workers, holder, LASTING)
    first, key = holder.get(LASTING), f"{PREFIX}:entry:*{LASTING}[?]"
    until(lambda: holder.get(LASTING).is_success and len(redis.keys(key)) == 1, "the entry")
    entry: Any
    [entry] = redis.keys(key)
    lock = entry.replace(b":entry:", b":lock:")
    until(lambda: 0 < redis.pttl(entry) < 60_000, "it to be stale")
    workers.postgres.turn(held=True)
    until(lambda: holder.get(LASTING).is_success and redis.exists(lock) == 1, "the lock")
    holder.kill_workers()
    assert 0 < redis.pttl(lock) <= 1000 * COST
    assert other.get(LASTING).content == first.content
    workers.postgres.turn(held=False)
    until(lambda: not redis.exists(lock), "the end of the lock", COST + 2.0)
