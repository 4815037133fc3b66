"""Whatever happens to Redis, the service answers, rightly and in time, and uses it again when it is back.

`CHAOS=long` holds each fault for 5 s instead of 1. Figures: `pytest -s`.
"""

import asyncio
import os
import statistics
from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.cache.client import Answer, Load, load, tell
from tests.e2e.cache.fleet import Fleet
from tests.e2e.cache.proxy import IGNORING, REFUSING, SWALLOW

SECONDS = 5.0 if os.environ.get("CHAOS") == "long" else 1.0  # that a fault lasts
HOT = [f"/api/products/{number}" for number in range(200, 210)]
COLD = [f"/api/products/{number}" for number in range(1000, 4000)]
MIXED = [page for pair in zip(HOT * 300, COLD, strict=True) for page in pair]


def kill(fleet: Fleet) -> None:
    fleet.valkey.stop()


def freeze(fleet: Fleet) -> None:
    fleet.valkey.freeze()


def refuse(fleet: Fleet) -> None:
    for member in fleet.members:
        member.redis.turn(door=REFUSING)


def ignore(fleet: Fleet) -> None:
    """A black hole, for those who connect and for those who are connected."""
    for member in fleet.members:
        member.redis.turn(door=IGNORING, commands=SWALLOW, subscriptions=SWALLOW)


def slow(fleet: Fleet) -> None:
    for member in fleet.members:
        member.redis.turn(delay=0.1)


def read_its_file(fleet: Fleet) -> None:
    """It has come back, and answers that it is loading."""
    fleet.valkey.client.mset({f"other:{number}": "x" for number in range(10_000)})
    fleet.valkey.client.save()
    fleet.valkey.stop(keep=True)
    fleet.valkey.start("--key-load-delay", "2000", wait=False)


def fill(fleet: Fleet) -> None:
    fleet.valkey.client.config_set("maxmemory-policy", "noeviction")
    fleet.valkey.client.config_set("maxmemory", 1)


def take_no_writes(fleet: Fleet) -> None:
    """A replica of what does not answer."""
    fleet.valkey.client.replicaof("127.0.0.1", 1)


def change_the_password(fleet: Fleet) -> None:
    fleet.valkey.client.config_set("requirepass", "another")
    for kind in ("normal", "pubsub"):
        fleet.valkey.client.client_kill_filter(_type=kind, skipme=True)


FAULTS = [kill, freeze, refuse, ignore, slow, read_its_file, fill, take_no_writes, change_the_password]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault(workers: Fleet, fault: Callable[[Fleet], None]) -> None:
    """Half of the requests are for pages in the worker's memory, half for pages that have to be computed."""

    async def scenario() -> tuple[list[Answer], list[Answer]]:
        async with load([a for a in workers.addresses for _ in range(2)], MIXED) as answered:
            await asyncio.sleep(SECONDS)
            before = take(answered)
            await asyncio.to_thread(fault, workers)
            await asyncio.sleep(SECONDS)
            return before, take(answered)

    before, during = asyncio.run(scenario())
    workers.restart_valkey()
    back = max(workers.wait_for_redis(member) for member in workers.members)

    assert {answer.status for answer in during} == {200}
    for answer in during:
        assert answer.body.startswith(b'{"id":%b,' % answer.path.rpartition("/")[2].encode())
    tell(f"{fault.__name__}: back after {back:.1f} s")
    for name, kind in (("hits", hits), ("misses", misses)):
        was, became = kind(before), kind(during)
        tell(f"  {name}: before {spread(was)}; then {spread(became)}")
        assert statistics.median(became) < statistics.median(was) + 0.02  # 1 ms on a machine of one's own
        assert max(became) < 1.0  # 0.1
    waits = Counter(answer.address for answer in during if answer.seconds > 0.04)
    tell(f"  above 40 ms, by worker: {[*waits.values()]}")
    assert len(hits(during)) > len(during) / 4  # of the half that is asked for again and again
    assert back < 5.0


def take(load: Load) -> list[Answer]:
    taken, load.answers = load.answers, []
    assert not load.errors
    return taken


def hits(answers: list[Answer]) -> list[float]:
    return [answer.seconds for answer in answers if "l1" in answer.how]


def misses(answers: list[Answer]) -> list[float]:
    return [answer.seconds for answer in answers if answer.how.endswith("stored")]


def spread(seconds: list[float]) -> str:
    return f"{len(seconds)}: p50 {1000 * statistics.median(seconds):.1f} max {1000 * max(seconds):.1f} ms"
