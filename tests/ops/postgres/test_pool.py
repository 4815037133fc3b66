"""The pool under load, cancellation and outages, with a Postgres that may be stopped, killed and frozen."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as configured
from psycopg import OperationalError
from psycopg_pool import PoolTimeout, TooManyRequests
from pytest_django import Settings

from ops.postgres.checkouts import SHED, recent_waits
from ops.postgres.connection import MAX_PREPARED_STATEMENTS, ConnectionLost, ResponseTimeout
from ops.postgres.pool import ROLLBACK, Busy, Pool, Unreachable
from ops.postgres.statement import Param, Statement
from ops.postgres.transactions import BEGIN
from ops.project import NAME
from ops.tools.embedded.postgres import Postgres
from tests.loops import until
from tests.ops.postgres.conftest import Admin, settled
from tests.ops.postgres.test_connection import ECHO, ONE, PID, value

LOCK = 7
BLOCKED = Statement("SELECT 'free' FROM (SELECT pg_advisory_xact_lock_shared(%s)) AS locked", (LOCK,))
SLEEP = Statement("SELECT 'slept' FROM (SELECT pg_sleep(%s)) AS slept", (Param("seconds"),))


@pytest.fixture
def lock(admin: Admin) -> Admin:
    """The session that holds what BLOCKED waits for; it unlocks, or ends."""
    admin.execute(f"SELECT pg_advisory_lock({LOCK})")
    return admin


def unlock(admin: Admin) -> None:
    admin.execute(f"SELECT pg_advisory_unlock({LOCK})")


def blocked(admin: Admin) -> list[int]:
    """The backends that wait for the lock."""
    rows = admin.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall()
    return [pid for (pid,) in rows]


def start(
    pool: Pool, statement: Statement, times: int = 1, **values: Any
) -> list[asyncio.Task[bytes | None]]:
    return [asyncio.create_task(value(pool, statement, **values)) for _ in range(times)]


def children(pid: int) -> list[str]:
    """The processes that it has started."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


async def timed(work: Awaitable[Any], error: type[Exception]) -> float:
    """Seconds until it fails."""
    began = time.monotonic()
    with pytest.raises(error):
        await work
    return time.monotonic() - began


async def answers(pool: Pool, times: int = 10) -> None:
    """It answers as many at once as it may have connections and more."""
    assert await asyncio.gather(*start(pool, ECHO, times, x="here")) == [b"here"] * times


@pytest.mark.parametrize("options", [{"max_size": 5, "readers": 3, "timeout": 10}])
async def test_reads_leave_connections_to_writes(pool: Pool, lock: Admin) -> None:
    """Quick ones share one, reads that are not have two more, and only writes have the others."""
    write = Statement(
        "SELECT 'free' FROM (SELECT pg_advisory_xact_lock_shared(%s)) AS locked", (LOCK,), repeatable=False
    )
    reads = start(pool, BLOCKED, 4)
    await until(lambda: len(blocked(lock)) == 2)
    await answers(pool)
    assert len(pool.borrowed) == 3
    writes = start(pool, write, 3)
    await until(lambda: len(blocked(lock)) == 4)
    assert (len(pool.borrowed), len(pool.waiting)) == (5, 3)
    await answers(pool)
    unlock(lock)
    assert await asyncio.gather(*reads, *writes) == [b"free"] * 7


@pytest.mark.parametrize("options", [{"max_size": 5, "readers": 3, "timeout": 10}])
async def test_transactions_leave_connections_to_reads(pool: Pool, lock: Admin) -> None:
    """They write, though their BEGIN does not."""
    leases = [await pool.lease(BEGIN["read committed"]) for _ in range(3)]
    reads = start(pool, BLOCKED, 1)
    await until(lambda: len(blocked(lock)) == 1)
    assert not pool.waiting
    unlock(lock)
    assert await asyncio.gather(*reads) == [b"free"]
    for lease in leases:
        await lease.end(ROLLBACK)


# --- Queueing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"max_size": 2, "timeout": 10}])
async def test_more_callers_than_connections(pool: Pool) -> None:
    tasks = [asyncio.create_task(value(pool, ECHO, x=number)) for number in range(60)]
    assert await asyncio.gather(*tasks) == [b"%d" % number for number in range(60)]
    assert len(pool.borrowed) <= 2


@pytest.mark.parametrize("options", [ONE | {"timeout": 10}])
async def test_first_come_first_served(pool: Pool, lock: Admin) -> None:
    held = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    served: list[int] = []

    async def wait(number: int) -> None:
        await value(pool, ECHO, x=number)
        served.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    await until(lambda: len(pool.waiting) == 3)
    unlock(lock)
    await asyncio.gather(*held, *waiting)
    assert served == [0, 1, 2]


@pytest.mark.parametrize("options", [{"max_size": 1, "max_waiting": 2, "timeout": 10}])
async def test_too_many_wait(pool: Pool, lock: Admin) -> None:
    held = start(pool, BLOCKED, 3)
    await until(lambda: blocked(lock) and len(pool.waiting) == 2)
    assert await timed(value(pool, ECHO, x=1), TooManyRequests) < 0.1
    unlock(lock)
    assert await asyncio.gather(*held) == [b"free"] * 3


@pytest.mark.parametrize("options", [{"max_size": 1, "timeout": 0.2}])
async def test_waiting_is_bounded(pool: Pool, lock: Admin) -> None:
    (held,) = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    assert 0.19 < await timed(value(pool, ECHO, x=1), PoolTimeout) < 0.5
    unlock(lock)
    assert await held == b"free"


@pytest.mark.parametrize("options", [{"max_size": 3, "readers": 3, "timeout": 0.2}])
async def test_an_idle_connection_is_used_where_another_cannot_be_opened(
    pool: Pool, lock: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = start(pool, BLOCKED, 2)
    await until(lambda: len(blocked(lock)) == 2)
    unlock(lock)
    await asyncio.gather(*held)
    monkeypatch.setattr(pool, "_grow", lambda _place: None)
    last = pool._places[2]
    assert last
    last.fail(ConnectionLost("another client has its place now"))
    assert await value(pool, Statement("SELECT 'written'", (), repeatable=False)) == b"written"
    assert await value(pool, SLEEP, seconds=0) == b"slept"


@pytest.mark.parametrize("options", [{"max_size": 1, "timeout": 0.1}])
async def test_who_waits_in_vain_is_shed(pool: Pool, lock: Admin) -> None:
    before = SHED.value
    (held,) = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    with pytest.raises(Busy):
        await value(pool, ECHO, x=1)
    assert SHED.value == before + 1
    unlock(lock)
    await held


# --- Cancellation ---------------------------------------------------------------------------------


async def cancel(tasks: list[asyncio.Task[bytes | None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(task.cancelled() for task in tasks)


@pytest.mark.parametrize("options", [ONE | {"timeout": 10}])
async def test_cancelled_while_waiting_and_in_flight(pool: Pool, lock: Admin) -> None:
    held = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    waiting = start(pool, ECHO, 3, x=1)
    await until(lambda: len(pool.waiting) == 3)
    await cancel(waiting[1:2])
    assert len(pool.waiting) == 2
    await cancel(held)
    assert not pool.idle  # its statement runs on
    unlock(lock)
    assert await waiting[0] == await waiting[2] == b"1"


@pytest.mark.parametrize("options", [ONE | {"timeout": 10}])
async def test_cancelled_while_preparing(pool: Pool, lock: Admin) -> None:
    """A lock on a table holds up its preparation; whether that then fails or not, the next call works."""
    lock.execute("CREATE TABLE IF NOT EXISTS late (number int)")
    found, missing = (Statement(f"SELECT count({column}) FROM late", ()) for column in ("number", "missing"))
    for statement in (found, missing):
        with lock.transaction():
            lock.execute("LOCK TABLE late")
            tasks = start(pool, statement)
            await until(lambda: pool.borrowed and not next(iter(pool.borrowed)).is_idle)
            await cancel(tasks)
        await settled(pool)
    assert await value(pool, found) == b"0"
    with pytest.raises(psycopg.errors.UndefinedColumn):
        await value(pool, missing)


@pytest.mark.parametrize("options", [ONE | {"timeout": 10}])
async def test_cancelled_as_its_turn_comes(pool: Pool, lock: Admin) -> None:
    """It is cancelled after its statement was sent, and before it runs again."""
    (held,) = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    tasks = start(pool, ECHO, x=1)
    await until(lambda: pool.waiting)
    held.add_done_callback(lambda _: tasks[0].cancel())
    unlock(lock)
    assert await held == b"free"
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    await settled(pool)
    await answers(pool)


@pytest.mark.parametrize("options", [{"max_size": 3, "timeout": 10, "max_waiting": 1000}])
async def test_cancelled_anywhere(pool: Pool) -> None:
    """At random points of 200 calls: waiting, preparing, deallocating, in flight, answered."""
    chance = random.Random(20)  # noqa: S311
    statements = [
        Statement(f"SELECT {number}, %s::text", (Param("x"),))
        for number in range(MAX_PREPARED_STATEMENTS + 9)
    ]
    for _ in range(10):
        tasks = [asyncio.create_task(value(pool, chance.choice(statements), x=1)) for _ in range(20)]
        for task in tasks:
            asyncio.get_running_loop().call_later(chance.random() * 0.01, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, bytes | asyncio.CancelledError) for result in results)
    await settled(pool)
    assert 1 <= len(pool.idle) <= 3
    await answers(pool)
    for number, statement in enumerate(statements):
        assert await value(pool, statement, x=1) == b"%d" % number


# --- Lost connections -----------------------------------------------------------------------------


async def backends(pool: Pool, size: int) -> set[int]:
    """The process ids of all its connections, once it has `size`."""
    found = await asyncio.gather(
        *start(pool, Statement("SELECT pg_backend_pid() FROM pg_sleep(0.05)", ()), size)
    )
    return {int(pid or 0) for pid in found}


async def test_backends_end_while_idle(pool: Pool, admin: Admin) -> None:
    for pid in await backends(pool, 4):
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    await answers(pool)


@pytest.mark.parametrize("options", [{"max_size": 4, "readers": 4}])
async def test_a_backend_ends_in_flight(pool: Pool, lock: Admin) -> None:
    """Nobody sees it: the query runs once more."""
    tasks = start(pool, BLOCKED, 3)
    await until(lambda: len(blocked(lock)) == 3)
    for pid in blocked(lock):
        lock.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    await until(lambda: len(blocked(lock)) == 3)
    unlock(lock)
    assert await asyncio.gather(*tasks) == [b"free"] * 3


@pytest.mark.parametrize("options", [{"max_size": 3}])
async def test_a_read_runs_again_where_something_answers(pool: Pool, lock: Admin) -> None:
    """Not on a connection that has said nothing since: it may be about to end, too."""
    tasks = start(pool, BLOCKED, 2)
    await until(lambda: len(blocked(lock)) == 2)
    unlock(lock)
    await asyncio.gather(*tasks)
    lock.execute(f"SELECT pg_advisory_lock({LOCK})")
    first, _, second = pool.borrowed  # places 0, 2 and 1
    quick = Statement(BLOCKED.template, (), quick=True)
    (task,) = start(pool, quick)
    await until(lambda: blocked(lock) == [first.source.info.backend_pid])
    silent = second.source.info.backend_pid
    os.kill(silent, signal.SIGSTOP)
    try:
        lock.execute("SELECT pg_terminate_backend(%s, 5000)", blocked(lock))
        unlock(lock)
        assert await task == b"free"
    finally:
        os.kill(silent, signal.SIGCONT)


@pytest.mark.parametrize("options", [{"max_size": 3, "timeout": 5}])
async def test_others_do_not_wait_behind_such_a_read(
    pool: Pool, lock: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take the idle connection that has not answered since, and no other can be opened."""
    tasks = start(pool, BLOCKED, 2)
    await until(lambda: len(blocked(lock)) == 2)
    unlock(lock)
    await asyncio.gather(*tasks)
    lock.execute(f"SELECT pg_advisory_lock({LOCK})")
    monkeypatch.setattr(pool, "_grow", lambda place: None)
    (retried,) = start(pool, BLOCKED)
    await until(lambda: len(blocked(lock)) == 1)
    lock.execute("SELECT pg_terminate_backend(%s, 5000)", blocked(lock))
    await until(lambda: pool.waiting and pool.waiting[0].only_proven)
    assert await value(pool, SLEEP, seconds=0) == b"slept"
    unlock(lock)
    assert await retried == b"free"  # on the connection that has just answered


@pytest.mark.parametrize("options", [ONE | {"timeout": 5}])
async def test_lost_under_a_cancelled_caller(pool: Pool, lock: Admin) -> None:
    """Those who wait get another connection, though nobody comes back to ask for it."""
    tasks = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    waiting = start(pool, ECHO, 2, x=1)
    await until(lambda: len(pool.waiting) == 2)
    await cancel(tasks)
    lock.execute("SELECT pg_terminate_backend(%s, 5000)", blocked(lock))
    assert await asyncio.gather(*waiting) == [b"1"] * 2


@pytest.mark.parametrize("options", [{"max_size": 3, "deadline": 0.2}])
async def test_a_frozen_backend(pool: Pool, admin: Admin) -> None:
    """The caller is told after the deadline, at the watch's next look; everyone else is served meanwhile."""
    frozen = int(await value(pool, PID) or 0)
    os.kill(frozen, signal.SIGSTOP)
    try:
        task = asyncio.create_task(timed(value(pool, ECHO, x=1), ResponseTimeout))
        await asyncio.sleep(0)
        await answers(pool)
        assert 0.2 < await task < 0.2 + 0.5 + 0.3
        cancelled = start(pool, ECHO, x=1)
        assert await cancelled[0] == b"1"
    finally:
        os.kill(frozen, signal.SIGCONT)
    await answers(pool)


@pytest.mark.parametrize("options", [{"max_size": 2, "deadline": 0.2}])
async def test_a_frozen_backend_under_a_cancelled_caller(pool: Pool) -> None:
    frozen = int(await value(pool, PID) or 0)
    os.kill(frozen, signal.SIGSTOP)
    try:
        tasks = start(pool, ECHO, x=1)
        await until(lambda: any(not connection.is_idle for connection in pool.borrowed))
        await cancel(tasks)
        await until(lambda: not any(not connection.is_idle for connection in pool.borrowed), seconds=1)
    finally:
        os.kill(frozen, signal.SIGCONT)
    await answers(pool)


# --- Outages --------------------------------------------------------------------------------------


async def recovered(pool: Pool, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while True:
            with suppress(OperationalError):
                return await answers(pool, 4)
            await asyncio.sleep(0.05)


async def test_a_crash(pool: Pool, server: Postgres) -> None:
    """A backend that is killed takes all others with it, and Postgres some time to recover."""
    pid = int(await value(pool, PID) or 0)
    os.kill(pid, signal.SIGKILL)
    await recovered(pool, 5)
    await until(server.answers)


async def test_a_restart(pool: Pool, server: Postgres) -> None:
    await backends(pool, 4)
    await asyncio.to_thread(server.stop)
    for _ in range(3):
        assert await timed(value(pool, ECHO, x=1), OperationalError) < 1
    everyone = [asyncio.create_task(timed(value(pool, ECHO, x=1), OperationalError)) for _ in range(10)]
    assert max(await asyncio.gather(*everyone)) < 1
    await asyncio.to_thread(server.start)
    await recovered(pool, 5)


async def test_away(pool: Pool, server: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    """One request waits in vain; those after it are refused at once, until an attempt to connect succeeds."""
    await asyncio.to_thread(server.stop)
    await timed(value(pool, ECHO, x=1), Unreachable)
    assert not pool.borrowed
    refused = [await timed(value(pool, ECHO, x=1), Unreachable) for _ in range(20)]
    assert sorted(refused)[10] < 0.01
    assert not pool.waiting
    await asyncio.to_thread(server.start)
    await until(lambda: pool.borrowed)  # without a request that asks for it
    await answers(pool)
    said = [record.getMessage() for record in caplog.records if record.name == "ops.postgres.pool"]
    assert [line for line in said if "away" in line or "back" in line] == [
        "the database is away: requests that need it are refused",
        "the database is back",
    ]


@pytest.mark.parametrize("options", [ONE | {"deadline": 0.5}])
async def test_away_while_it_is_frozen(pool: Pool, server: Postgres) -> None:
    pids = [server.pid, *(int(pid) for pid in children(server.pid))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await timed(value(pool, ECHO, x=1), ResponseTimeout)
        await timed(value(pool, ECHO, x=1), Unreachable)
        assert await timed(value(pool, ECHO, x=1), Unreachable) < 0.1
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await until(lambda: pool.borrowed)
    await answers(pool)


@pytest.mark.parametrize("options", [{"max_size": 1, "timeout": 0.1}])
async def test_not_away_while_it_is_busy(pool: Pool, lock: Admin) -> None:
    held = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    for _ in range(2):
        await timed(value(pool, ECHO, x=1), Busy)
    unlock(lock)
    await asyncio.gather(*held)
    await answers(pool)


@pytest.mark.parametrize("options", [{"max_size": 1, "timeout": 0.1}])
async def test_waits_that_are_no_overload(pool: Pool, lock: Admin, server: Postgres) -> None:
    """Admission control hears of quick statements that wait for their turn, and of nothing else."""
    recent_waits.take()
    held = start(pool, BLOCKED)
    await until(lambda: blocked(lock))
    await timed(value(pool, BLOCKED), Busy)
    assert recent_waits.take() == 0
    await timed(value(pool, ECHO, x=1), Busy)
    assert 0.09 < recent_waits.take() < 1
    unlock(lock)
    await asyncio.gather(*held)
    await asyncio.to_thread(server.stop)
    await timed(value(pool, ECHO, x=1), OperationalError)  # its connection is lost
    recent_waits.take()
    await timed(value(pool, ECHO, x=1), Unreachable)
    assert recent_waits.take() == 0
    await asyncio.to_thread(server.start)
    await recovered(pool, 5)


async def test_a_restart_that_nobody_notices(pool: Pool, server: Postgres) -> None:
    """Its connections have ended without a query; the next ones succeed."""
    await backends(pool, 4)
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await recovered(pool, 5)


async def test_opened_while_the_database_is_down(
    runner: asyncio.Runner, server: Postgres, database: dict[str, Any], settings: Settings
) -> None:
    settings.NATIVE_POOL = replace(settings.NATIVE_POOL, connect_timeout=0.5)
    pool = Pool()
    await asyncio.to_thread(server.stop)
    try:
        await pool.open()
        assert not pool.borrowed
        assert await timed(value(pool, ECHO, x=1), OperationalError) < 1
    finally:
        await asyncio.to_thread(server.start)
    await recovered(pool, 5)
    await pool.close()


# --- Opening and closing --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"max_size": 3, "timeout": 10}])
async def test_closed_in_use(pool: Pool, lock: Admin) -> None:
    """Whoever waits is told at once, for an answer or for a connection, and nothing is opened again."""
    tasks = start(pool, BLOCKED, 4)
    await until(lambda: len(blocked(lock)) == 2 and len(pool.waiting) == 2)
    began = time.monotonic()
    await pool.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - began < 1
    assert all(isinstance(result, OperationalError) for result in results)
    assert sum(isinstance(result, ConnectionLost) for result in results) == 2
    assert not pool.borrowed
    await pool.close()


def sessions(admin: Admin) -> int:
    """Those of the pool, while they last."""
    rows = admin.execute("SELECT FROM pg_stat_activity WHERE application_name = %s", [NAME]).fetchall()
    return len(rows)


async def test_opened_and_closed_again_and_again(
    runner: asyncio.Runner, database: dict[str, Any], admin: Admin
) -> None:
    pool = Pool()
    for _ in range(3):
        await pool.open()
        await answers(pool)
        await pool.close()
        await until(lambda: not sessions(admin))


async def test_closed_unopened(runner: asyncio.Runner) -> None:
    await Pool().close()


def test_one_loop_after_the_other(database: dict[str, Any]) -> None:
    pool = Pool()

    async def use() -> None:
        await pool.open()
        await answers(pool)
        await pool.close()

    for _ in range(2):
        with asyncio.Runner() as runner:
            runner.run(use())


@pytest.mark.parametrize("options", [{"prepare": False, "depth": 1, "max_size": 4, "readers": 4}])
async def test_without_prepared_statements(pool: Pool, lock: Admin) -> None:
    tasks = start(pool, BLOCKED, 3)
    await until(lambda: len(blocked(lock)) == 3)
    await cancel(tasks[:1])
    lock.execute("SELECT pg_terminate_backend(%s, 5000)", blocked(lock)[:1])
    unlock(lock)
    assert await asyncio.gather(*tasks[1:]) == [b"free"] * 2
    await answers(pool)
    assert configured.NATIVE_POOL.prepare is False
