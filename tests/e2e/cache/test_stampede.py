"""Stampedes: each worker computes a cheap page once at most; one, or its successor, an expensive one."""

import asyncio

import pytest

from tests.e2e.cache.client import Answer, at_once, connections, tell
from tests.e2e.cache.fleet import Fleet, Member, until
from tests.e2e.cache.urls import COST

CHEAP, EXPENSIVE = "/api/products?limit=50", "/tests/expensive?limit=50"
CROWD = 1000


def executions(workers: Fleet) -> int:
    """Of the page's statement: a worker that starts reads others."""
    return sum("LIMIT 51" in sql for sql, _ in workers.wiretap.bound)


@pytest.mark.parametrize(("page", "most"), [(CHEAP, 4), (EXPENSIVE, 1)])
def test_a_thousand_requests_at_once(workers: Fleet, crew: Member, page: str, most: int) -> None:
    """When nothing is cached, and again when a change has invalidated it."""
    bodies = set()
    for _ in range(2):
        workers.wiretap.clear()
        answers = asyncio.run(at_once([crew.address], page, CROWD))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert 1 <= executions(workers) <= most
        bodies.add(answers[0].body)
        assert crew.post("/tests/native/1").is_success
    assert len(bodies) == 2


def test_a_worker_that_dies_while_it_computes(workers: Fleet) -> None:
    """The others wait for it as long as the page costs; then each computes for itself, once."""
    holder, *others = workers.members
    workers.wiretap.clear()
    workers.postgres.turn(held=True)

    async def scenario() -> list[Answer]:
        async with connections([holder.address]) as [dying]:
            lost = asyncio.create_task(dying.get(EXPENSIVE))
            await asyncio.to_thread(until, lambda: bool(workers.wiretap.messages), "the holder's query")
            crowd = asyncio.create_task(at_once([other.address for other in others], EXPENSIVE, 150))
            await asyncio.to_thread(
                until, lambda: asked() >= 2 + 2 * len(others), "the others to ask for the lock"
            )
            holder.kill_workers()
            workers.postgres.turn(held=False)
            with pytest.raises(asyncio.IncompleteReadError):
                await lost
            return await crowd

    def asked() -> int:
        return int(workers.valkey.client.info("commandstats")["cmdstat_mget"]["calls"]) - before

    before = 0
    before = asked()
    answers = asyncio.run(scenario())
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert executions(workers) <= 1 + len(others)
    longest = max(answer.seconds for answer in answers)
    assert longest < COST + 3.0  # 2.0 s on an idle machine
    tell(f"waited {longest:.2f} s at most; {executions(workers)} queries by 4 workers")
