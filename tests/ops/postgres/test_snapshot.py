"""Long reads of one moment: side by side, bounded in time and in connections, gone when nobody waits."""

import asyncio
import time
from typing import Any

import psycopg
import pytest
from psycopg import OperationalError, errors

from ops.postgres.connection import ResponseTimeout
from ops.postgres.pool import Pool, pools
from ops.postgres.snapshot import read_snapshot
from ops.postgres.statement import Statement
from tests.loops import until
from tests.ops.postgres.conftest import Admin
from tests.ops.postgres.test_pool import BLOCKED, LOCK, blocked, unlock
from tests.wiretap import Wiretap

SECONDS = 30.0
LONG = Statement("SELECT current_setting('statement_timeout')", ())
OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
"""


@pytest.fixture(autouse=True)
def native(pool: Pool, monkeypatch: pytest.MonkeyPatch, runner: asyncio.Runner) -> Pool:
    monkeypatch.setitem(pools, runner.get_loop(), pool)
    return pool


@pytest.fixture
def lock(admin: Admin) -> Admin:
    admin.execute(f"SELECT pg_advisory_lock({LOCK})")
    return admin


def transactions(admin: Admin) -> int:
    """The transactions of other sessions."""
    (count,) = admin.execute(OTHERS).fetchone() or (0,)
    return int(count)


async def read(*statements: Statement, seconds: float = SECONDS, connections: int = 2) -> list[bytes | None]:
    results = await read_snapshot(statements, seconds=seconds, connections=connections)
    return [result.get_value(0, 0) for result in results]


async def test_side_by_side_on_connections_of_their_own(lock: Admin, native: Pool) -> None:
    """As many as it may have, and none of the pool's."""
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read(*[BLOCKED] * 5))
        await until(lambda: len(blocked(lock)) == 2)
        assert transactions(lock) == 2
        assert {*native.idle} == {*native.borrowed}
        unlock(lock)
    assert reading.result() == [b"free"] * 5
    await until(lambda: transactions(lock) == 0)


async def test_of_one_moment(admin: Admin, wire: Wiretap) -> None:
    """A row that is written between the begins of the two transactions is in neither."""
    admin.execute("CREATE TABLE counted AS SELECT 1 AS one")
    count = Statement("SELECT count(*) FROM counted", ())

    def has_begun_twice() -> bool:
        return sum("BEGIN" in statement for statement in wire.statements) == 2

    wire.withholds = has_begun_twice
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read(*[count] * 4))
            await until(has_begun_twice)
            admin.execute("INSERT INTO counted VALUES (2)")
            wire.withholds = lambda: False
        assert reading.result() == [b"1"] * 4
        assert await read(count) == [b"2"]
    finally:
        admin.execute("DROP TABLE counted")


async def test_longer_than_a_requests_statements(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database["OPTIONS"], "options", "-c TimeZone=UTC -c statement_timeout=1000")
    assert await read(LONG, seconds=7, connections=1) == [b"7s"]
    assert await read(LONG, LONG, LONG) == [b"30s"] * 3


@pytest.mark.parametrize("connections", [1, 2])
async def test_not_in_time(lock: Admin, connections: int) -> None:
    began = time.monotonic()
    with pytest.raises((ResponseTimeout, errors.QueryCanceled)):
        await read(*[BLOCKED] * 3, seconds=0.3, connections=connections)
    assert time.monotonic() - began < 5
    await until(lambda: transactions(lock) == 0)


async def test_the_failure_of_one(lock: Admin) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="no_such_table"):
        await read(BLOCKED, Statement("SELECT 1 FROM no_such_table", ()))
    await until(lambda: transactions(lock) == 0)


async def test_a_caller_that_is_cancelled(lock: Admin) -> None:
    reading = asyncio.create_task(read(BLOCKED, BLOCKED))
    await until(lambda: len(blocked(lock)) == 2)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until(lambda: transactions(lock) == 0)


async def test_a_session_that_is_killed(lock: Admin) -> None:
    reading = asyncio.create_task(read(BLOCKED, BLOCKED))
    await until(lambda: len(blocked(lock)) == 2)
    lock.execute("SELECT pg_terminate_backend(%s)", [blocked(lock)[1]])
    with pytest.raises(OperationalError):
        await reading
    await until(lambda: transactions(lock) == 0)


@pytest.mark.parametrize(
    "at", ["BEGIN", "pg_export_snapshot", "SET TRANSACTION SNAPSHOT", "statement_timeout'"]
)
async def test_a_server_that_falls_silent(wire: Wiretap, at: str) -> None:
    """It answers no cancellation either, as Postgres does not while it is frozen."""
    wire.withholds = lambda: any(at in statement for statement in wire.statements)
    began = time.monotonic()
    with pytest.raises(ResponseTimeout):
        await read(LONG, LONG, seconds=0.5)
    assert time.monotonic() - began < 3
    wire.withholds = lambda: False


async def test_a_database_that_is_away(database: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(database, "HOST", "/nowhere")
    with pytest.raises(OperationalError):
        await read(LONG)
