"""A page that everybody asks for at once is computed by one; and by another, if that one dies."""

import asyncio

import pytest

from tests.e2e.cache.client import Answer, at_once, connections, tell
from tests.e2e.cache.fleet import Fleet, Member, until

PAGE = "/api/products?limit=50"
CROWD = 1000


def test_one_query_for_a_thousand_requests(workers: Fleet, crew: Member) -> None:
    """When nothing is cached, and again when a change has invalidated it."""
    bodies = set()
    for _ in range(2):
        workers.wiretap.clear()
        answers = asyncio.run(at_once([crew.address], PAGE, CROWD))
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert workers.wiretap.executions == 1
        bodies.add(answers[0].body)
        assert crew.post("/tests/native/1").is_success
    assert len(bodies) == 2


def test_a_worker_that_dies_while_it_computes(workers: Fleet) -> None:
    """The others wait for it no longer than their patience, 1 s; then each computes for itself, once."""
    holder, *others = workers.members
    workers.postgres.turn(held=True)

    async def scenario() -> list[Answer]:
        async with connections([holder.address]) as [dying]:
            lost = asyncio.create_task(dying.get(PAGE))
            await asyncio.to_thread(until, lambda: bool(workers.wiretap.messages), "the holder's query")
            crowd = asyncio.create_task(at_once([other.address for other in others], PAGE, 150))
            await asyncio.to_thread(until, lambda: asked() >= 3, "the others to ask for the lock")
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
    assert workers.wiretap.executions <= 1 + len(others)
    assert max(answer.seconds for answer in answers) < 5.0  # 1.1 s, where nobody else wants the processor
    longest = max(answer.seconds for answer in answers)
    tell(f"waited {longest:.2f} s at most; {workers.wiretap.executions} queries by 4 workers")
