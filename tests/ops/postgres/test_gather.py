"""Queries side by side: how many at once, what a failure does to the others, and whose time it is."""

import asyncio
from typing import Any

import pytest
from psycopg import ProgrammingError

from ops.postgres.gather import gather
from ops.postgres.pool import Pool, current, fetch, pools
from ops.postgres.statement import Statement
from ops.telemetry import stopwatch
from ops.telemetry.stopwatch import DB, QUEUE, Stopwatch
from tests.loops import until
from tests.ops.postgres.conftest import Admin, settled
from tests.ops.postgres.test_pool import BLOCKED, LOCK, blocked, unlock

ROOMY = {"max_size": 5, "readers": 5, "timeout": 10.0, "deadline": 30.0}


@pytest.fixture
def native(pool: Pool, monkeypatch: pytest.MonkeyPatch, runner: asyncio.Runner) -> Pool:
    """The pool of the test's loop."""
    monkeypatch.setitem(pools, runner.get_loop(), pool)
    return pool


@pytest.fixture
def lock(admin: Admin) -> Admin:
    admin.execute(f"SELECT pg_advisory_lock({LOCK})")
    return admin


async def text(statement: Statement) -> bytes | None:
    return (await fetch(statement, ())).get_value(0, 0)


async def holds(other: asyncio.Event, own: asyncio.Event) -> bytes | None:
    """A query that is done only when `other` is under way."""
    own.set()
    await other.wait()
    return await text(Statement("SELECT 'done'", ()))


@pytest.mark.parametrize("options", [ROOMY])
async def test_they_are_in_postgres_at_the_same_time(native: Pool, lock: Admin) -> None:
    """Three wait there for a lock; a fourth is not sent before one of them is done."""
    async with asyncio.TaskGroup() as group:
        gathered = group.create_task(gather(*(text(BLOCKED) for _ in range(4)), limit=3))
        await until(lambda: len(blocked(lock)) == 3)
        assert len(native.borrowed) - len(native.idle) == 3
        unlock(lock)
    assert gathered.result() == [b"free"] * 4


async def test_in_their_order(native: Pool) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    assert await gather(holds(second, first), holds(first, second)) == [b"done"] * 2
    assert await gather(text(Statement("SELECT 'a'", ())), text(Statement("SELECT 'b'", ()))) == [b"a", b"b"]
    assert await gather() == []


async def test_two_at_once_unless_more_are_asked_for(native: Pool) -> None:
    at_once, most = 0, 0

    async def query() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await text(Statement("SELECT 1", ()))
        at_once -= 1

    await gather(*(query() for _ in range(9)))
    assert most == 2
    await gather(*(query() for _ in range(9)), limit=5)
    assert most == 5


@pytest.mark.parametrize("options", [ROOMY])
async def test_the_failure_of_one_ends_the_others(native: Pool, lock: Admin) -> None:
    """Its own error is raised, for which there is an answer, and a query that waits for its turn is not begun."""
    begun = asyncio.Event()

    async def last() -> bytes | None:
        begun.set()
        return b""

    async def fails() -> bytes | None:
        await until(lambda: blocked(lock))
        return await text(Statement("SELECT pg_catalog.error_on_purpose()", ()))

    with pytest.raises(ProgrammingError, match="error_on_purpose"):
        await gather(text(BLOCKED), fails(), last())
    assert not begun.is_set()
    unlock(lock)
    await settled(native)


@pytest.mark.parametrize("options", [ROOMY])
async def test_a_caller_that_is_cancelled(native: Pool, lock: Admin) -> None:
    gathered = asyncio.create_task(gather(text(BLOCKED), text(BLOCKED), text(BLOCKED)))
    await until(lambda: len(blocked(lock)) == 2)
    gathered.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gathered
    unlock(lock)
    await settled(native)


@pytest.mark.parametrize("options", [ROOMY])
async def test_their_time_counts_once(native: Pool, lock: Admin) -> None:
    watch = Stopwatch(b"id")
    token = stopwatch.current.set(watch)
    async with asyncio.TaskGroup() as group:
        group.create_task(gather(*(text(BLOCKED) for _ in range(3)), limit=3))
        await until(lambda: len(blocked(lock)) == 3)
        unlock(lock)
    stopwatch.current.reset(token)
    total = watch.lap()
    assert sum(watch.seconds) == pytest.approx(total)
    assert 0 < watch.seconds[DB.index] <= total


def test_waits_side_by_side_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: now)
    watch = Stopwatch(b"id")
    token = stopwatch.current.set(watch)
    with DB, DB, DB:
        now = 30.0
    # One waited for the first 5 seconds, one for 10, one from the 8th to the 14th; they run until the 30th.
    for since, until_ in ((0.0, 5.0), (0.0, 10.0), (8.0, 14.0), (2.0, 3.0)):
        QUEUE.take_from(DB, since, until_)
    stopwatch.current.reset(token)
    assert (watch.seconds[QUEUE.index], watch.seconds[DB.index]) == (14.0, 16.0)


async def test_one_after_another_in_a_transaction(native: Pool) -> None:
    await _one_after_another(native)


async def _one_after_another(runs: Any) -> None:
    order: list[str] = []

    async def query(name: str) -> None:
        order.append(f"{name} begins")
        await text(Statement("SELECT 1", ()))
        order.append(f"{name} ends")

    token = current.set(runs)
    await gather(query("a"), query("b"), limit=9)
    current.reset(token)
    assert order == ["a begins", "a ends", "b begins", "b ends"]


@pytest.mark.django_db
def test_one_after_another_on_djangos_connection() -> None:
    asyncio.run(_one_after_another(None))
