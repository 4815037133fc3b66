"""A worker that is killed takes its own connections with it, and nothing else."""

import asyncio
import os
import signal

from tests.e2e.cache.client import at_once, load
from tests.e2e.cache.fleet import PREFIX, Fleet, Member, until

PAGES = [f"/api/products/{number}" for number in range(400, 430)]


def test_the_others_go_on(workers: Fleet, crew: Member) -> None:
    async def scenario() -> None:
        async with load([crew.address] * 16, PAGES, 0.005) as answered:
            for _ in range(3):
                until(lambda: len(crew.workers()) == 4, "four workers")
                await asyncio.sleep(0.4)
                os.kill(crew.workers()[-1], signal.SIGKILL)
            await asyncio.sleep(0.4)
        assert {answer.status for answer in answered.answers} == {200}
        assert len(answered.errors) <= 16 * 3  # those connected to the dead
        for answer in answered.answers:
            assert answer.body.startswith(b'{"id":%b,' % answer.path.rpartition("/")[2].encode())

    asyncio.run(scenario())
    until(lambda: workers.subscribers() == workers.listeners + 4, "the successors' subscriptions")
    answers = asyncio.run(at_once([crew.address], "/api/products?limit=30", 200))
    assert {answer.status for answer in answers} == {200}


def test_no_lock_outlives_its_time(workers: Fleet) -> None:
    """The worker dies while it refreshes a page; the others send the stale one meanwhile, and refresh it later."""
    entry, lock = (f"{PREFIX}:{kind}:lasting/5?" for kind in ("entry", "lock"))
    holder, other, *_ = workers.members
    redis = workers.valkey.client
    first = holder.get("/tests/lasting/5")
    until(lambda: 0 < redis.pttl(entry) < 60_000, "it to be stale")
    workers.postgres.turn(held=True)
    until(lambda: holder.get("/tests/lasting/5").is_success and redis.exists(lock) == 1, "the lock")
    holder.kill_workers()
    assert 0 < redis.pttl(lock) <= 2000
    assert other.get("/tests/lasting/5").content == first.content
    workers.postgres.turn(held=False)
    until(lambda: not redis.exists(lock), "the end of the lock", 4.0)
