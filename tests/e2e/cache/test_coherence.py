"""After a write is acknowledged, every worker answers with it: in milliseconds, and in a second without messages.

`CHAOS=long` makes 1,000 writes of the 60.
"""

import asyncio
import os
import statistics

import pytest

from tests.e2e.cache.client import Answer, Connection, connections, load, tell
from tests.e2e.cache.fleet import Fleet
from tests.e2e.cache.proxy import CUT, SWALLOW

WRITES = 1000 if os.environ.get("CHAOS") == "long" else 60
PAGES = [f"/api/products/{number}" for number in range(100, 140)]


def test_writes_under_load_are_seen_at_once(workers: Fleet) -> None:
    """Written in turn through each worker and in each way, read through all of them."""

    async def scenario() -> list[float]:
        delays: list[float] = []
        async with (
            connections(workers.addresses) as readers,
            connections(workers.addresses) as writers,
            load([a for a in workers.addresses for _ in range(2)], PAGES) as background,
        ):
            await asyncio.gather(*(reader.get("/api/products/1") for reader in readers))
            for number in range(WRITES):
                writer = writers[number % len(writers)]
                written = await writer.request("POST", f"/tests/{('native', 'orm')[number % 2]}/1")
                fresh = await asyncio.gather(
                    *(_until_fresh(reader, "/api/products/1", int(written.body)) for reader in readers)
                )
                delays += [answer.began - written.ended for answer in fresh]
        assert {answer.status for answer in background.answers} == {200}
        assert not background.errors
        return delays

    delays = sorted(asyncio.run(scenario()))
    tell(f"{len(delays)} reads; ms: {_distribution(delays)}")
    assert statistics.median(delays) < 0.05
    assert delays[-1] < 1.0


@pytest.mark.parametrize("fate", [CUT, SWALLOW])
def test_without_messages_within_a_second(workers: Fleet, fate: str) -> None:
    async def scenario() -> list[float]:
        delays = []
        async with connections(workers.addresses) as readers:
            for number in range(4):
                await asyncio.gather(*(reader.get("/api/products/2") for reader in readers))
                written = await readers[number].request("POST", "/tests/native/2")
                fresh = await asyncio.gather(
                    *(_until_fresh(reader, "/api/products/2", int(written.body)) for reader in readers)
                )
                delays += [answer.began - written.ended for answer in fresh]
                assert delays[4 * number + number] < 0.01  # the writer itself knows it
        return delays

    for member in workers.members:
        member.redis.turn(subscriptions=fate)
    delays = sorted(asyncio.run(scenario()))
    tell(f"{len(delays)} reads; ms: {_distribution(delays)}")
    assert delays[-1] < 1.0


async def _until_fresh(reader: Connection, path: str, value: int) -> Answer:
    """The first answer with the value."""
    for _ in range(10_000):
        answer = await reader.get(path)
        assert answer.status == 200
        if answer.value >= value:
            return answer
        await asyncio.sleep(0)
    raise AssertionError(f"{path} still has {answer.value} instead of {value}")


def _distribution(seconds: list[float]) -> str:
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return ", ".join(
        f"{n} {1000 * seconds[min(int(r * len(seconds)), len(seconds) - 1)]:.1f}" for n, r in ranks.items()
    )
