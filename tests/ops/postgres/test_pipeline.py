"""Statements of many callers on one connection: in one batch, each with its own result, error and time."""

import asyncio
import os
import signal
import threading
import time
from typing import Any

import pytest
from psycopg import OperationalError, errors

from ops.postgres.connection import MAX_PREPARED_STATEMENTS, ConnectionLost, ResponseTimeout
from ops.postgres.pool import HELD_UP_SECONDS, Pool
from ops.postgres.statement import Param, Statement
from ops.telemetry import stopwatch
from tests.loops import until
from tests.ops.postgres.conftest import Admin, settled
from tests.ops.postgres.test_connection import ECHO, ONE, PID, value
from tests.wiretap import Wiretap

DIVIDE = Statement("SELECT (6 / %s::int)::text", (Param("by"),), quick=True)
NAP = Statement("SELECT 'woken' FROM pg_sleep(%s)", (Param("seconds"),), quick=True)
SLEEP = Statement("SELECT 'slept' FROM pg_sleep(%s)", (Param("seconds"),))
LOCK = 8
QUEUED = Statement("SELECT pg_advisory_xact_lock_shared(%s)::text", (LOCK,), quick=True)
INSERT = Statement(
    "INSERT INTO counted SELECT %s::int FROM pg_sleep(0.2) RETURNING number",
    (Param("number"),),
    quick=True,
    repeatable=False,
)
TWO = {"max_size": 2}  # of which quick statements have one


def start(
    pool: Pool, statement: Statement, times: int = 1, **values: Any
) -> list[asyncio.Task[bytes | None]]:
    return [asyncio.create_task(value(pool, statement, **values)) for _ in range(times)]


def kinds(wire: Wiretap) -> str:
    return "".join(message.kind for message in wire.messages)


# --- Batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [ONE])  # the wiretap would hear another one being opened
async def test_a_turn_of_the_loop_is_a_batch(wire: Wiretap, pool: Pool) -> None:
    """Eight statements are one write with one Sync; the first of them is prepared in it, without a round trip."""
    wire.clear()
    assert await asyncio.gather(*start(pool, ECHO, 8, x="a")) == [b"a"] * 8
    assert kinds(wire) == "P" + "BDEH" * 7 + "BDES"
    wire.clear()
    assert await asyncio.gather(*start(pool, ECHO, 8, x="b")) == [b"b"] * 8
    assert kinds(wire) == "BDEH" * 7 + "BDES"


@pytest.mark.parametrize("options", [ONE | {"prepare": False, "depth": 1, "timeout": 5}])
async def test_no_pipelining(wire: Wiretap, pool: Pool) -> None:
    """Behind a pooler that knows no prepared statements: one after the other."""
    wire.clear()
    assert await asyncio.gather(*start(pool, ECHO, 4, x="a")) == [b"a"] * 4
    assert kinds(wire) == "PBDES" * 4


@pytest.mark.parametrize("options", [TWO | {"depth": 4, "timeout": 5}])
async def test_no_more_than_the_depth_are_under_way(pool: Pool) -> None:
    tasks = start(pool, ECHO, 10, x=1)
    await asyncio.sleep(0)
    (connection,) = pool.borrowed
    assert connection.calls_due == 4
    assert len(pool.waiting) == 6
    assert await asyncio.gather(*tasks) == [b"1"] * 10


@pytest.mark.parametrize("options", [ONE])
async def test_a_write_is_a_batch_of_its_own(wire: Wiretap, pool: Pool, admin: Admin) -> None:
    """In one batch with a statement that fails, it would be undone though its caller had its result."""
    admin.execute("DROP TABLE IF EXISTS counted; CREATE TABLE counted (number int)")
    await value(pool, ECHO, x=1)
    await value(pool, INSERT, number=0)
    wire.clear()
    tasks = [*start(pool, ECHO, x=1), *start(pool, INSERT, number=1), *start(pool, ECHO, 2, x=2)]
    assert await asyncio.gather(*tasks) == [b"1", b"1", b"2", b"2"]
    assert kinds(wire) == "BDES" + "BDES" + "BDEHBDES"
    failing = [*start(pool, INSERT, number=2), *start(pool, DIVIDE, by=0)]
    written, error = await asyncio.gather(*failing, return_exceptions=True)
    assert (written, type(error)) == (b"2", errors.DivisionByZero)
    assert admin.execute("SELECT array_agg(number) FROM counted").fetchone() == ([0, 1, 2],)


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [TWO | {"depth": 32}, TWO | {"depth": 32, "prepare": False}])
async def test_an_error_is_only_its_own_callers(pool: Pool) -> None:
    """Postgres skips the rest of the batch; it is sent again, as often as another one of it fails."""
    for _ in range(3):
        divisors = [1, 0, 2, 3, 0, 0, 6, 1]
        tasks = [*start(pool, ECHO, x=1)]
        for by in divisors:
            tasks += [*start(pool, DIVIDE, by=by), *start(pool, ECHO, x=by)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == b"1"
        assert results[2::2] == [b"%d" % by for by in divisors]
        for by, result in zip(divisors, results[1::2], strict=True):
            assert result == b"%d" % (6 // by) if by else isinstance(result, errors.DivisionByZero)
    await settled(pool)
    assert len(pool.borrowed) == 1


@pytest.mark.parametrize("options", [TWO | {"depth": 32}])
async def test_preparations_that_fail(pool: Pool) -> None:
    """Each caller gets the error of the preparation, and statements after it are prepared all the same."""
    wrong = Statement("SELECT nothing FROM no_such_table", (), quick=True)
    others = [Statement(f"SELECT 'other {number}'", (), quick=True) for number in range(3)]
    for _ in range(2):
        tasks = [*start(pool, wrong, 2)]
        for other in others:
            tasks += [*start(pool, other, 2), *start(pool, wrong)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results].count(errors.UndefinedTable) == 5
        assert [result for result in results if isinstance(result, bytes)] == [
            b"other %d" % number for number in (0, 0, 1, 1, 2, 2)
        ]


@pytest.mark.parametrize("options", [TWO | {"depth": 64, "max_waiting": 1000, "timeout": 10}])
async def test_more_statements_than_stay_prepared_and_errors(pool: Pool) -> None:
    """What an error skips (preparations, and the Close of the least recently used) is made up for."""
    numbers = range(MAX_PREPARED_STATEMENTS + 20)
    statements = [Statement(f"SELECT (1 / ({number} %% 10))::text", (), quick=True) for number in numbers]
    for _ in range(3):
        tasks = [task for statement in statements for task in start(pool, statement)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in zip(numbers, results, strict=True):
            if number % 10:
                assert result == b"%d" % (1 / (number % 10))
            else:
                assert isinstance(result, errors.DivisionByZero)
    count = Statement("SELECT count(*)::text FROM pg_prepared_statements", (), quick=True)
    assert int(await value(pool, count) or 0) <= MAX_PREPARED_STATEMENTS + 1


@pytest.mark.parametrize("options", [TWO])
async def test_stale_statements(pool: Pool, admin: Admin) -> None:
    """A migration, and a DEALLOCATE: each of eight callers at once has its result."""
    admin.execute("DROP TABLE IF EXISTS changing; CREATE TABLE changing AS SELECT 7 AS number")
    read = Statement("SELECT number FROM changing", (), quick=True)
    for kind, expected in [("int", b"7"), ("text", b"7"), ("numeric(9, 2)", b"7.00")]:
        admin.execute(f"ALTER TABLE changing ALTER number TYPE {kind} USING number::{kind}")
        tasks = [*start(pool, read, 4), *start(pool, ECHO, x=1), *start(pool, read, 4)]
        assert await asyncio.gather(*tasks) == [expected] * 4 + [b"1"] + [expected] * 4
    for _ in range(2):
        await value(pool, Statement("DEALLOCATE ALL", (), quick=True))
        tasks = [*start(pool, read, 3), *start(pool, ECHO, 3, x=1)]
        assert await asyncio.gather(*tasks) == [b"7.00"] * 3 + [b"1"] * 3


@pytest.mark.parametrize("options", [TWO])
async def test_each_statement_has_its_own_time_out(pool: Pool) -> None:
    """statement_timeout counts from where a statement may start: three in one batch take longer than it together."""
    await value(pool, Statement("SELECT set_config('statement_timeout', '250', false)", (), quick=True))
    assert await asyncio.gather(*start(pool, NAP, 3, seconds=0.15)) == [b"woken"] * 3
    tasks = [*start(pool, NAP, seconds=5), *start(pool, ECHO, 2, x=1)]
    late, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(late, errors.QueryCanceled)
    assert others == [b"1", b"1"]


# --- Cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [TWO])
async def test_a_cancelled_one_in_the_middle(pool: Pool) -> None:
    before = [*start(pool, ECHO, 2, x="before")]
    cancelled = [*start(pool, ECHO, x="cancelled"), *start(pool, DIVIDE, by=0)]
    after = start(pool, ECHO, 2, x="after")
    await asyncio.sleep(0)  # sent
    for task in cancelled:
        task.cancel()
    assert await asyncio.gather(*before, *after) == [b"before"] * 2 + [b"after"] * 2
    assert all(
        isinstance(each, asyncio.CancelledError)
        for each in await asyncio.gather(*cancelled, return_exceptions=True)
    )
    await settled(pool)


# --- Loss -----------------------------------------------------------------------------------------


def queued(admin: Admin) -> list[int]:
    rows = admin.execute("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchall()
    return [pid for (pid,) in rows]


@pytest.mark.parametrize("options", [TWO])
async def test_lost_with_eight_under_way(pool: Pool, admin: Admin) -> None:
    """Each is run once more, on another connection."""
    admin.execute(f"SELECT pg_advisory_lock({LOCK})")
    tasks = [*start(pool, QUEUED), *start(pool, ECHO, 7, x=1)]
    await until(lambda: queued(admin))
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", queued(admin))
    admin.execute(f"SELECT pg_advisory_unlock({LOCK})")
    assert await asyncio.gather(*tasks) == [b""] + [b"1"] * 7


@pytest.mark.parametrize("options", [TWO])
async def test_lost_twice(pool: Pool, admin: Admin) -> None:
    admin.execute(f"SELECT pg_advisory_lock({LOCK})")
    (task,) = start(pool, QUEUED)
    for _ in range(2):
        await until(lambda: queued(admin))
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", queued(admin))
    with pytest.raises(ConnectionLost):
        await task
    admin.execute(f"SELECT pg_advisory_unlock({LOCK})")


@pytest.mark.parametrize("options", [ONE])
async def test_a_write_is_not_repeated(pool: Pool, admin: Admin) -> None:
    """Its caller is told that its outcome is unknown; the reads around it are repeated."""
    admin.execute("DROP TABLE IF EXISTS counted; CREATE TABLE counted (number int)")
    pid = int(await value(pool, PID) or 0)
    tasks = [*start(pool, ECHO, x=1), *start(pool, INSERT, number=1), *start(pool, ECHO, x=1)]
    sleeping = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'"
    await until(lambda: admin.execute(sleeping, [pid]).fetchone() is not None)
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    first, written, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, last) == (b"1", b"1")
    assert isinstance(written, ConnectionLost)
    assert admin.execute("SELECT count(*) FROM counted").fetchone() == (0,)


@pytest.mark.parametrize("options", [TWO | {"deadline": 0.4}])
async def test_a_frozen_backend_with_more_under_way(pool: Pool) -> None:
    """All of them were asked at the same time: all get the error at the deadline, and are not asked again."""
    pid = int(await value(pool, PID) or 0)
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        results = await asyncio.gather(*start(pool, ECHO, 4, x=1), return_exceptions=True)
        assert 0.4 < time.monotonic() - began < 0.4 + 0.5 + 0.3
        assert all(isinstance(result, ResponseTimeout) for result in results)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await value(pool, ECHO, x=1) == b"1"


# --- Statements that take long --------------------------------------------------------------------


@pytest.mark.parametrize("options", [TWO])
async def test_a_quick_statement_never_waits_behind_one_that_is_not(pool: Pool) -> None:
    slow = start(pool, SLEEP, 2, seconds=0.3)  # the second one waits for the first one's connection
    await until(lambda: len(pool.borrowed) == 2 and len(pool.waiting) == 1)
    assert await asyncio.gather(*start(pool, ECHO, 20, x=1)) == [b"1"] * 20
    assert not any(task.done() for task in slow)
    assert await asyncio.gather(*slow) == [b"slept"] * 2


@pytest.mark.parametrize("options", [{"max_size": 3}])
async def test_a_connection_that_is_held_up_is_avoided(pool: Pool) -> None:
    """By a statement that was called quick and is not."""
    first = await value(pool, PID)
    (held_up,) = start(pool, NAP, seconds=0.5)
    await asyncio.sleep(2 * HELD_UP_SECONDS)
    assert await value(pool, PID) != first
    assert not held_up.done()
    assert await held_up == b"woken"
    assert await value(pool, PID) == first


@pytest.mark.parametrize("options", [{"max_size": 3}])
async def test_those_behind_one_that_takes_long_are_sent_elsewhere(pool: Pool) -> None:
    before = await value(pool, PID)
    (nap,) = start(pool, NAP, seconds=0.5)
    behind = start(pool, PID, 8)
    assert before not in await asyncio.gather(*behind)
    assert not nap.done()
    assert await nap == b"woken"
    await settled(pool)


@pytest.mark.parametrize("options", [{"max_size": 3}])
async def test_those_that_are_to_be_sent_again_are_not_sent_elsewhere(
    wire: Wiretap, pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """An error has come, and the end of its batch takes its time."""
    await asyncio.gather(value(pool, ECHO, x=1), value(pool, SLEEP, seconds=0))
    (nap,) = start(pool, NAP, seconds=0.05)
    await asyncio.sleep(2 * HELD_UP_SECONDS)
    await value(pool, ECHO, x=1)  # on another connection, which is there now
    await nap
    wire.holds_ready = threading.Event()
    failed, *behind = [*start(pool, DIVIDE, by=0), *start(pool, ECHO, 3, x="again")]
    await asyncio.sleep(4 * HELD_UP_SECONDS)
    wire.holds_ready.set()
    assert isinstance((await asyncio.gather(failed, return_exceptions=True))[0], errors.DivisionByZero)
    assert await asyncio.gather(*behind) == [b"again"] * 3
    await settled(pool)
    assert "exception in callback" not in caplog.text.lower()


@pytest.mark.parametrize("options", [ONE | {"depth": 2, "timeout": 5}])
async def test_a_connection_that_drops_calls_serves_those_that_wait(wire: Wiretap, pool: Pool) -> None:
    """The error has come, and then the end of the batch, by which the cancelled call behind it is dropped."""
    await value(pool, ECHO, x=1)
    wire.holds_ready = threading.Event()
    failed, cancelled = *start(pool, DIVIDE, by=0), *start(pool, ECHO, x=1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    assert isinstance((await asyncio.gather(failed, return_exceptions=True))[0], errors.DivisionByZero)
    began = time.monotonic()
    (waiting,) = start(pool, SLEEP, seconds=0)  # needs a connection of its own
    await until(lambda: pool.waiting)
    wire.holds_ready.set()
    assert await waiting == b"slept"
    assert time.monotonic() - began < 4


# In the words of PgBouncer: `FATAL: server conn crashed?`, 08P01.
CRASHED = b"E\0\0\0\x29SFATAL\0C08P01\0Mserver conn crashed?\0\0"


@pytest.mark.parametrize("options", [ONE])
async def test_a_pooler_that_has_lost_the_server(wire: Wiretap, pool: Pool) -> None:
    """The connection is lost: a read runs once more, of a write nobody knows."""
    await value(pool, ECHO, x=1)
    wire.last_words = CRASHED
    with pytest.raises(ConnectionLost, match="server conn crashed"):
        await value(pool, Statement("SELECT 'x'", (), repeatable=False))
    await value(pool, ECHO, x=1)
    wire.last_words = CRASHED
    assert await value(pool, ECHO, x="again") == b"again"
    assert not wire.last_words


@pytest.mark.parametrize("options", [TWO])
async def test_where_its_time_goes(pool: Pool) -> None:
    """What a statement waits for others in its pipe is `queue`, what it takes itself is `db`."""

    async def timed(statement: Statement, **values: Any) -> list[float]:
        watch = stopwatch.Stopwatch(b"")
        stopwatch.current.set(watch)
        await value(pool, statement, **values)
        return watch.seconds

    (nap,) = (asyncio.create_task(timed(NAP, seconds=0.1)),)
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # it has been sent
    behind = asyncio.create_task(timed(ECHO, x=1))
    first, second = await asyncio.gather(nap, behind)
    queue, db = stopwatch.QUEUE.index, stopwatch.DB.index
    assert first[db] > 0.09
    assert first[queue] < 0.01
    assert second[queue] > 0.04  # or nearly all, where its result comes on its own


async def test_no_error_is_lost_when_the_server_goes(pool: Pool, admin: Admin) -> None:
    """Terminated again and again under load: reads have their rows, and the pool is whole in the end.

    A read runs once more, and not twice: one connection goes at a time, and each client has had an answer before the
    next one does.
    """
    stop = asyncio.Event()
    answered = [0] * 8
    wrong: list[BaseException | bytes | None] = []

    async def client(number: int) -> None:
        while not stop.is_set():
            try:
                found = await value(pool, ECHO, x="here")
            except (ConnectionLost, OperationalError) as error:
                wrong.append(error)
            else:
                if found != b"here":
                    wrong.append(found)
            answered[number] += 1

    clients = [asyncio.create_task(client(number)) for number in range(8)]
    for number in range(30):
        pids = sorted(connection.source.info.backend_pid for connection in pool.borrowed)
        if pids:
            pid = pids[number % len(pids)]
            await asyncio.to_thread(admin.execute, "SELECT pg_terminate_backend(%s, 5000)", [pid])
        before = [*answered]
        await until(lambda: all(now > one for now, one in zip(answered, before, strict=True)))  # noqa: B023
    stop.set()
    await asyncio.gather(*clients)
    assert not wrong
