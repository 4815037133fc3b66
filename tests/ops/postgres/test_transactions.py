"""Transactions: all or nothing, after errors, cancellation and losses; and the connection comes back clean."""
# ruff: noqa: PT012  a block of statements is what raises

import asyncio
import contextvars
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from psycopg import errors
from psycopg_pool import PoolTimeout
from pytest_django import DjangoDbBlocker, Settings

from ops.postgres.connection import ConnectionLost, OutcomeUnknown
from ops.postgres.pool import Pool, StockPool, fetch, pools
from ops.postgres.statement import Param, Statement
from ops.postgres.transactions import Transaction, TransactionTimeout, in_transaction, transaction
from tests.extra import OWN_SESSIONS
from tests.loops import until
from tests.ops.postgres.conftest import Admin, settled
from tests.wiretap import Wiretap

ADD = Statement("INSERT INTO account VALUES (%s::int, 0)", (Param("id"),), repeatable=False)
PAY = Statement(
    "UPDATE account SET total = total + %s::int WHERE id = %s::int",
    (Param("amount"), Param("id")),
    repeatable=False,
)
READ = Statement("SELECT total FROM account WHERE id = %s::int", (Param("id"),), quick=True)
SUM = Statement("SELECT coalesce(sum(total), 0) FROM account", (), quick=True)
SLEEP = Statement("SELECT pg_sleep(%s)", (Param("seconds"),))
TOTALS = "SELECT id, total FROM account ORDER BY id"
MANY = {"max_size": 4, "max_waiting": 1000, "timeout": 30}


async def run(statement: Statement, **values: Any) -> bytes | None:
    result = await fetch(statement, statement.bind(values))
    return result.get_value(0, 0) if result.ntuples else None


@pytest.fixture(autouse=True)
def _table(request: pytest.FixtureRequest) -> Iterator[None]:
    if "runner" not in request.fixturenames:
        yield
        return
    admin: Admin = request.getfixturevalue("admin")
    admin.execute(
        "CREATE TABLE account (id int PRIMARY KEY DEFERRABLE INITIALLY IMMEDIATE, total int CHECK (total < 1000))"
    )
    admin.execute("INSERT INTO account VALUES (1, 0), (2, 0)")
    yield
    admin.execute("DROP TABLE account")


@pytest.fixture(params=[Pool, StockPool])
def any_pool(
    request: pytest.FixtureRequest,
    runner: asyncio.Runner,
    database: dict[str, Any],
    settings: Settings,
    options: dict[str, Any],
) -> Iterator[Any]:
    """Open, and that of the running loop; has all its connections back in the end."""
    settings.NATIVE_POOL = replace(settings.NATIVE_POOL, **options)
    pool = request.param()
    runner.run(pool.open())
    pools[runner.get_loop()] = pool
    yield pool
    runner.run(until(lambda: pool.counts()[1:] == (0, 0)))
    del pools[runner.get_loop()]
    runner.run(pool.close())


@pytest.fixture
def native(runner: asyncio.Runner, pool: Pool) -> Iterator[Pool]:
    pools[runner.get_loop()] = pool
    yield pool
    del pools[runner.get_loop()]


class Oops(Exception):
    pass


async def test_all_or_nothing(any_pool: Any, admin: Admin) -> None:
    async with transaction():
        await run(PAY, id=1, amount=-5)
        await run(PAY, id=2, amount=5)
        assert await run(READ, id=2) == b"5"
        assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]
    assert admin.execute(TOTALS).fetchall() == [(1, -5), (2, 5)]
    with pytest.raises(Oops):
        async with transaction():
            await run(PAY, id=1, amount=-5)
            raise Oops
    with pytest.raises(errors.CheckViolation):
        async with transaction():
            await run(PAY, id=1, amount=-5)
            await run(PAY, id=2, amount=5000)
    assert await run(READ, id=1) == b"-5"
    assert admin.execute("SELECT id FROM account FOR UPDATE NOWAIT").fetchall()  # no lock is left


async def test_an_error_that_is_caught_commits_nothing(any_pool: Any, admin: Admin) -> None:
    with pytest.raises(errors.InFailedSqlTransaction, match="without a savepoint") as caught:
        async with transaction():
            await run(PAY, id=1, amount=1)
            with pytest.raises(errors.CheckViolation):
                await run(PAY, id=2, amount=5000)
    assert isinstance(caught.value.__cause__, errors.CheckViolation)
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


async def test_a_savepoint_does_not_undo_what_was_cancelled_before(any_pool: Any, admin: Admin) -> None:
    with pytest.raises(errors.InFailedSqlTransaction):
        async with transaction() as tx:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await run(SLEEP, seconds=0.1)
            with suppress(Oops):
                async with tx.savepoint():
                    raise Oops


async def test_savepoints(any_pool: Any, admin: Admin) -> None:
    called: list[str] = []
    async with transaction() as tx:
        tx.on_commit(lambda: called.append("first"))
        await run(PAY, id=1, amount=1)
        async with tx.savepoint():
            await run(PAY, id=1, amount=10)
            tx.on_commit(lambda: called.append("kept"))
            with pytest.raises(errors.CheckViolation):
                async with transaction() as inner:  # the same, of code that does not know that it is in one
                    assert inner is tx
                    inner.on_commit(lambda: called.append("undone"))
                    await run(PAY, id=1, amount=100)
                    await run(PAY, id=2, amount=5000)
        with pytest.raises(Oops):
            async with tx.savepoint():
                await run(PAY, id=2, amount=7)
                raise Oops
        assert called == []
    assert admin.execute(TOTALS).fetchall() == [(1, 11), (2, 0)]
    assert called == ["first", "kept"]


async def test_hooks(any_pool: Any, admin: Admin) -> None:
    """After the commit, beyond the transaction, before the block is left."""
    called: list[Any] = []

    async def hook() -> None:
        called.append(admin.execute(TOTALS).fetchall())
        await run(PAY, id=2, amount=9)

    async with transaction() as tx:
        tx.on_commit(hook)
        await run(PAY, id=1, amount=1)
    assert called == [[(1, 1), (2, 0)]]
    assert admin.execute(TOTALS).fetchall() == [(1, 1), (2, 9)]
    with pytest.raises(Oops):
        async with transaction() as tx:
            tx.on_commit(hook)
            raise Oops
    assert len(called) == 1


async def test_an_error_after_the_commit_does_not_begin_again(any_pool: Any, admin: Admin) -> None:
    def fail() -> None:
        raise errors.DeadlockDetected("of another statement")

    async def pay(tx: Transaction) -> None:
        tx.on_commit(fail)
        await run(PAY, id=1, amount=1)

    with pytest.raises(errors.DeadlockDetected):
        await in_transaction(pay)
    assert admin.execute(TOTALS).fetchall() == [(1, 1), (2, 0)]


async def test_a_deferred_constraint(any_pool: Any, admin: Admin) -> None:
    with pytest.raises(errors.UniqueViolation):
        async with transaction():
            await run(Statement("SET CONSTRAINTS ALL DEFERRED", (), repeatable=False))
            await run(ADD, id=1)
            await run(ADD, id=3)
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_isolation(any_pool: Any, admin: Admin, level: Any) -> None:
    async with transaction(isolation=level):
        shown = await run(Statement("SHOW transaction_isolation", ()))
        before = await run(READ, id=1)
        admin.execute("UPDATE account SET total = 3 WHERE id = 1")
        assert (await run(READ, id=1) != before) == (level == "read committed")
    assert shown == level.encode()
    assert await run(Statement("SHOW transaction_isolation", ())) == b"read committed"


async def test_no_other_isolation(any_pool: Any) -> None:
    with pytest.raises(ValueError, match="not 'snapshot'"):
        async with transaction(isolation="snapshot"):  # type: ignore[arg-type]
            pass


async def test_a_deadline(any_pool: Any, admin: Admin) -> None:
    """Also of a statement that is under way; the connection comes back when the statement has ended."""
    with pytest.raises(TransactionTimeout, match=r"more than 0\.2 s"):
        async with transaction(deadline=0.2):
            await run(PAY, id=1, amount=1)
            await run(SLEEP, seconds=0.4)
    with pytest.raises(TimeoutError):
        async with transaction(deadline=5):
            raise TimeoutError  # another's
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


async def test_no_attempt_begins_after_the_deadline(any_pool: Any, admin: Admin) -> None:
    attempts = 0

    async def block(tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await run(PAY, id=1, amount=1)
        time.sleep(0.06)  # noqa: ASYNC251  nothing cancels it, so its own error comes out
        raise errors.SerializationFailure("too late")

    with pytest.raises(errors.SerializationFailure, match="too late"):
        await in_transaction(block, deadline=0.05)
    assert attempts == 1
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


@pytest.mark.parametrize("options", [MANY])
async def test_cancelled_anywhere(any_pool: Any, admin: Admin) -> None:
    """A hundred that are cancelled at any point have paid all or nothing, and their hooks know which."""
    committed = 0

    def count() -> None:
        nonlocal committed
        committed += 1

    async def pay() -> None:
        async with transaction() as tx:
            tx.on_commit(count)
            await run(PAY, id=1, amount=-1)
            await run(PAY, id=2, amount=1)

    tasks = []
    for number in range(100):
        tasks.append(asyncio.create_task(pay()))
        asyncio.get_running_loop().call_later(number % 20 / 2000, tasks[-1].cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: any_pool.counts()[1:] == (0, 0))
    await until(lambda: admin.execute(TOTALS).fetchall() == [(1, -committed), (2, committed)])


@pytest.mark.parametrize("options", [MANY])
async def test_a_deadlock_is_tried_again(any_pool: Any, admin: Admin) -> None:
    attempts = 0
    met = asyncio.Barrier(2)

    async def pay(first: int, second: int) -> None:
        nonlocal attempts

        async def block(_tx: Transaction) -> None:
            nonlocal attempts
            attempts += 1
            await run(PAY, id=first, amount=1)
            if attempts <= 2:
                await met.wait()
            await run(PAY, id=second, amount=1)

        await in_transaction(block)

    admin.execute("ALTER SYSTEM SET deadlock_timeout = '20ms'")
    admin.execute("SELECT pg_reload_conf()")
    try:
        await asyncio.gather(pay(1, 2), pay(2, 1))
    finally:
        admin.execute("ALTER SYSTEM RESET deadlock_timeout")
        admin.execute("SELECT pg_reload_conf()")
    assert attempts > 2
    assert admin.execute(TOTALS).fetchall() == [(1, 2), (2, 2)]


@pytest.mark.parametrize("options", [MANY])
async def test_serialisation_failures_are_tried_again(any_pool: Any, admin: Admin) -> None:
    """Each adds one to what it has read: none is lost."""
    attempts = 0

    async def block(_tx: Transaction) -> None:
        total = int(await run(READ, id=1) or 0)
        await asyncio.sleep(0)
        await run(PAY, id=1, amount=total + 1 - total)

    await asyncio.gather(*(in_transaction(block, isolation="serializable", attempts=50) for _ in range(4)))
    assert admin.execute(TOTALS).fetchall() == [(1, 4), (2, 0)]

    async def fail(_tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        raise errors.SerializationFailure

    with pytest.raises(errors.SerializationFailure):
        await in_transaction(fail)
    assert attempts == 3


def terminate(admin: Admin, pid: bytes | None) -> None:
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", [int(pid or 0)])


async def test_a_lost_connection(any_pool: Any, admin: Admin) -> None:
    """Before the COMMIT: nothing was written, and the block may run again."""
    attempts = 0

    async def block(_tx: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await run(PAY, id=1, amount=1)
        if attempts == 1:
            terminate(admin, await run(Statement("SELECT pg_backend_pid()", ())))
            await asyncio.sleep(0.05)  # for the news to come, in the one case
        await run(PAY, id=2, amount=1)

    await in_transaction(block)
    assert attempts == 2
    assert admin.execute(TOTALS).fetchall() == [(1, 1), (2, 1)]


async def test_a_savepoint_that_was_cancelled_is_not_committed(any_pool: Any, admin: Admin) -> None:
    with pytest.raises(errors.InFailedSqlTransaction):
        async with transaction() as tx:
            await run(PAY, id=1, amount=1)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.01), tx.savepoint():
                    await run(PAY, id=2, amount=1)
                    await asyncio.sleep(60)
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


async def test_lost_before_the_commit_is_sent(any_pool: Any, admin: Admin) -> None:
    with pytest.raises((ConnectionLost, OutcomeUnknown)):
        async with transaction():
            await run(PAY, id=1, amount=1)
            terminate(admin, await run(Statement("SELECT pg_backend_pid()", ())))
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


async def test_lost_under_the_commit(any_pool: Any, admin: Admin) -> None:
    """Its outcome is unknown: it is not tried again."""
    admin.execute("""
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slow()
    """)
    attempts = 0
    pid: bytes | None = None

    async def block(_tx: Transaction) -> None:
        nonlocal attempts, pid
        attempts += 1
        await run(PAY, id=1, amount=1)
        pid = await run(Statement("SELECT pg_backend_pid()", ()))

    try:
        task = asyncio.create_task(in_transaction(block))
        sleeps = f"SELECT FROM {OWN_SESSIONS} AND wait_event = 'PgSleep'"
        await until(lambda: admin.execute(sleeps).fetchall())
        terminate(admin, pid)
        with pytest.raises(OutcomeUnknown):
            await task
    finally:
        admin.execute("DROP TRIGGER slow ON account; DROP FUNCTION slow()")
    assert attempts == 1
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 0)]


async def test_a_stale_statement(any_pool: Any, admin: Admin) -> None:
    """A prepared statement that a migration has changed: the block runs again."""
    everything = Statement("SELECT * FROM account WHERE id = %s::int", (Param("id"),))
    for _ in range(6):  # psycopg prepares the sixth
        async with transaction():
            await run(everything, id=1)
    admin.execute("ALTER TABLE account ADD COLUMN note text")

    async def block(_tx: Transaction) -> None:
        await run(PAY, id=1, amount=1)
        await run(everything, id=1)

    for _ in range(3):
        await in_transaction(block)
    assert admin.execute("SELECT total FROM account WHERE id = 1").fetchall() == [(3,)]


async def test_tasks_of_the_block(any_pool: Any, admin: Admin) -> None:
    """Those that it waits for are in the transaction; one that outlives it is not."""
    event = asyncio.Event()

    async def later() -> None:
        await event.wait()
        await run(PAY, id=2, amount=7)

    with pytest.raises(Oops):
        async with transaction():
            await asyncio.gather(run(PAY, id=1, amount=1), run(PAY, id=2, amount=1))
            task = asyncio.create_task(later())
            raise Oops
    event.set()
    await task
    assert admin.execute(TOTALS).fetchall() == [(1, 0), (2, 7)]


# --- The native pool ------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"max_size": 2}])
async def test_a_round_trip_a_statement(wire: Wiretap, native: Pool) -> None:
    """BEGIN, two statements, COMMIT; nothing else is said on that connection meanwhile."""
    for _ in range(2):
        wire.clear()
        async with transaction():
            await run(PAY, id=1, amount=1)
            await run(READ, id=1)
    assert "".join(message.kind for message in wire.messages) == "BDES" * 4


@pytest.mark.parametrize("options", [{"max_size": 3, "timeout": 5}])
async def test_quick_statements_run_beside_it(native: Pool, admin: Admin) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with transaction():
            await run(PAY, id=1, amount=1)
            entered.set()
            await leave.wait()

    task = asyncio.create_task(hold())
    await entered.wait()
    assert await asyncio.gather(*(run(SUM) for _ in range(50))) == [b"0"] * 50
    async with transaction():
        await run(PAY, id=2, amount=1)
    leave.set()
    await task
    await settled(native)
    assert await run(SUM) == b"2"


@pytest.mark.parametrize("options", [{"max_size": 2, "max_waiting": 2, "timeout": 0.2}])
async def test_transactions_wait_for_a_bounded_time(native: Pool) -> None:
    async def other() -> None:
        async with transaction():
            pass

    outside = contextvars.copy_context()
    async with transaction():
        with pytest.raises(PoolTimeout, match="no connection within"):
            await asyncio.create_task(other(), context=outside)


# --- Django's connection --------------------------------------------------------------------------


def test_on_djangos_connection(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """In a thread, whose connection is in no test's transaction."""
    with django_db_blocker.unblock(), ThreadPoolExecutor(1) as thread:
        thread.submit(async_to_sync(_on_django), commits=True).result()


@pytest.mark.django_db
def test_in_a_tests_transaction() -> None:
    assert connection.in_atomic_block
    async_to_sync(_on_django)(commits=False)


async def _on_django(*, commits: bool) -> None:
    create = Statement(
        "CREATE TEMPORARY TABLE account (id int PRIMARY KEY, total int CHECK (total < 1000))", ()
    )
    called: list[int] = []
    with pytest.raises(Oops):
        async with transaction() as tx:
            await run(create)
            tx.on_commit(lambda: called.append(0))
            raise Oops

    async def hook() -> None:
        called.append(1)

    async with transaction() as tx:
        await run(create)
        await run(ADD, id=1)
        tx.on_commit(hook)
        with pytest.raises(errors.CheckViolation):
            async with tx.savepoint():
                await run(PAY, id=1, amount=4)
                await run(PAY, id=1, amount=5000)
        assert await run(SUM) == b"0"
        await run(Statement("DROP TABLE account", ()))
    assert called == [1] * commits
