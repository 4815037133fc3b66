"""A change stays visible, also where Redis did not hear of it, or has lost it again."""

import asyncio
import socket
import time

import pytest

from tests.e2e.cache.client import Answer, load, tell
from tests.e2e.cache.fleet import PREFIX, Fleet, Member, until
from tests.e2e.cache.proxy import REFUSING
from tests.e2e.cache.valkey import Valkey, private_valkey

PAGE = "/api/products/3"
WRITE = "/tests/native/3"


def test_what_was_read_before_a_change_is_not_kept_for_long_after(workers: Fleet) -> None:
    """The life of an entry counts from when Redis was asked, not from the end of a long computation."""
    reader = workers.members[0]

    async def scenario() -> tuple[list[Answer], float, int]:
        asking = asyncio.create_task(asyncio.to_thread(reader.get, PAGE))
        workers.wiretap.clear()
        await asyncio.to_thread(until, lambda: bool(workers.wiretap.messages), "the query")
        value = await asyncio.to_thread(workers.write_unheard, 3)
        written = time.monotonic()
        await asyncio.sleep(0.85)
        workers.postgres.turn(held=False)
        old = (await asking).json()["demand_qty"]
        assert old == value - 1
        async with load([reader.address], [PAGE], 0.002) as answered:
            await asyncio.sleep(0.9)
        return answered.answers, written, value

    workers.postgres.turn(held=True)
    answers, written, value = asyncio.run(scenario())
    late = [answer for answer in answers if answer.began > written + 1.0]
    assert late
    assert {answer.value for answer in late} == {value}


@pytest.mark.parametrize("outage", ["frozen", "refusing", "read-only"])
def test_a_change_while_redis_is_away(workers: Fleet, outage: str) -> None:
    """The writer publishes it before any worker relies on Redis again: new answers do not become old."""

    async def scenario() -> tuple[list[Answer], float, int]:
        async with load(workers.addresses, [PAGE], 0.002) as answered:
            await asyncio.sleep(0.3)
            await asyncio.to_thread(begin)
            await asyncio.sleep(0.1)
            value = await asyncio.to_thread(lambda: int(workers.members[0].post(WRITE).text))
            written = time.monotonic()
            await asyncio.sleep(1.3)
            await asyncio.to_thread(end)
            await asyncio.sleep(1.6)
        assert not answered.errors
        return answered.answers, written, value

    def begin() -> None:
        if outage == "frozen":
            workers.valkey.freeze()
        elif outage == "refusing":
            for member in workers.members:
                member.redis.turn(door=REFUSING)
        else:
            workers.valkey.client.replicaof("127.0.0.1", 1)

    def end() -> None:
        if outage == "frozen":
            workers.valkey.thaw()
        elif outage == "refusing":
            for member in workers.members:
                member.redis.clear()
        else:
            workers.valkey.client.replicaof("no", "one")

    answers, written, value = asyncio.run(scenario())
    assert {answer.status for answer in answers} == {200}
    assert_fresh(answers, written, value, workers.members[0])


def test_a_file_that_lacks_the_last_change(workers: Fleet) -> None:
    """A Redis that saves to disk comes back as it was before."""

    async def scenario() -> tuple[list[Answer], float, float, int]:
        async with load(workers.addresses, [PAGE], 0.002) as answered:
            await asyncio.sleep(0.3)
            workers.valkey.client.save()
            value = await asyncio.to_thread(lambda: int(workers.members[0].post(WRITE).text))
            written = time.monotonic()
            await asyncio.sleep(0.2)
            workers.valkey.stop(keep=True)
            workers.valkey.start()
            returned = time.monotonic()
            await asyncio.sleep(2.0)
        return answered.answers, written, returned, value

    answers, written, returned, value = asyncio.run(scenario())
    sure = [answer for answer in answers if not returned < answer.began < returned + 1.0]
    assert_fresh(sure, written, value, workers.members[0])


def test_who_wrote_knows_it_though_redis_does_not_yet(workers: Fleet) -> None:
    """Redis is away for that one command: the entry that it holds is not valid for the worker that knows better."""
    writer, entry = workers.members[0], f"{PREFIX}:entry:*/api/products/3[?]"
    for _ in range(5):
        until(
            lambda: writer.get(PAGE).is_success and len(workers.valkey.client.keys(entry)) == 1, "the entry"
        )
        writer.redis.turn(door=REFUSING)
        value = int(writer.post(WRITE).text)
        writer.redis.clear()
        assert writer.get(PAGE).json()["demand_qty"] == value
        workers.wait_for_redis(writer)
    for member in workers.members:
        until(lambda m=member: m.get(PAGE).json()["demand_qty"] == value, "the change", 1.0)  # type: ignore[misc]


def assert_fresh(answers: list[Answer], written: float, value: int, writer: Member) -> None:
    """After a second no worker answers with the old or returns to it, and the writer does not at all."""
    for answer in answers:
        if answer.began > written + (0.0 if answer.address == writer.address else 1.0):
            assert answer.value == value, f"{answer.began - written:.2f} s later: {answer.how}"
    seen = set()
    for answer in answers:
        assert answer.value == value or answer.address not in seen, answer
        if answer.value == value:
            seen.add(answer.address)
    assert seen == {answer.address for answer in answers}


@pytest.mark.parametrize("old", ["dead", "demoted"])
def test_a_replica_that_lacks_the_last_change(workers: Fleet, old: str) -> None:
    """Replication is asynchronous: the promoted one has tags again that were deleted, and entries that they prove.

    A primary that is only demoted keeps its connections.
    """
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    workers.valkey.stop()
    workers.valkey.start("--port", port, "--repl-diskless-sync-delay", "0")
    workers.mend()

    async def scenario(replica: Valkey) -> tuple[list[Answer], float, float, int]:
        async with load(workers.addresses, [PAGE], 0.002) as answered:
            await asyncio.sleep(0.3)
            until(lambda: has_both(replica), "replication")
            replica.client.replicaof("127.0.0.1", 1)
            value = await asyncio.to_thread(lambda: int(workers.members[0].post(WRITE).text))
            written = time.monotonic()
            await asyncio.sleep(0.2)
            if old == "dead":
                workers.valkey.stop()
            else:
                workers.valkey.client.replicaof("127.0.0.1", 1)
            replica.client.replicaof("no", "one")
            assert has_both(replica)
            replica.socket.rename(workers.valkey.socket)
            promoted = time.monotonic()
            await asyncio.sleep(2.5)
        assert not answered.errors
        return answered.answers, written, promoted, value

    def has_both(replica: Valkey) -> bool:
        entry, tag = f"{PREFIX}:entry:*/api/products/3[?]", f"{PREFIX}:tag:shop.product:3"
        return len(replica.client.keys(entry)) == replica.client.exists(tag) == 1

    with private_valkey() as replica:
        replica.start("--replicaof", f"127.0.0.1 {port}")
        answers, written, promoted, value = asyncio.run(scenario(replica))
        hits = int(replica.client.info("commandstats")["cmdstat_mget"]["calls"])
    assert {answer.status for answer in answers} == {200}
    sure = [a for a in answers if not promoted < a.began < promoted + 1.0]  # it takes 0.1 s to notice
    assert_fresh(sure, written, value, workers.members[0])
    assert hits > 0  # the workers have found it
    tell(f"{sum(a.value != value for a in answers if a.began > promoted)} old answers after the promotion")
