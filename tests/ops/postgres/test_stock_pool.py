"""RUNTIME=stock: psycopg's pool and cursor in place of the native pool."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout, TooManyRequests
from pytest_django import Settings

from ops.postgres.checkouts import CHECKOUTS, SHED
from ops.postgres.pool import StockPool, fetch, open_pool, pools
from ops.postgres.statement import Param, Statement
from tests.loops import until
from tests.ops.postgres.conftest import Admin
from tests.ops.postgres.test_connection import ECHO, PID
from tests.ops.postgres.test_pool import BLOCKED, blocked, unlock

LOCK = 7


@pytest.fixture
def pool(
    runner: asyncio.Runner, database: dict[str, Any], settings: Settings, options: dict[str, Any]
) -> Iterator[StockPool]:
    settings.NATIVE_POOL = replace(settings.NATIVE_POOL, **options)
    pool = StockPool()
    runner.run(pool.open())
    yield pool
    runner.run(pool.close())


async def value(pool: StockPool, statement: Statement, **values: Any) -> bytes | None:
    result = await pool.fetch(statement, statement.bind(values))
    return result.get_value(0, 0)


async def test_values_are_texts(pool: StockPool) -> None:
    assert await value(pool, ECHO, x="a 'b' \\ %s") == b"a 'b' \\ %s"
    assert await value(pool, ECHO, x=None) is None
    doubled = Statement("SELECT %s::int + %s, '100%%'", (Param("x"), Param("x")))
    assert await value(pool, doubled, x=21) == b"42"


@pytest.mark.parametrize("options", [{"max_size": 1, "max_waiting": 1, "timeout": 0.3}])
async def test_waiting_is_bounded_in_number_and_time(pool: StockPool, admin: Admin) -> None:
    admin.execute(f"SELECT pg_advisory_lock({LOCK})")
    refused, late = (CHECKOUTS.labels("native", outcome) for outcome in ("refused", "timeout"))
    before = refused.value, late.value, SHED.value
    held = asyncio.create_task(value(pool, BLOCKED))
    await until(lambda: blocked(admin))
    waiting = asyncio.create_task(value(pool, ECHO, x=1))
    await until(lambda: pool.counts() == (0, 1, 1))
    with pytest.raises(TooManyRequests):
        await value(pool, ECHO, x=1)
    with pytest.raises(PoolTimeout):
        await waiting
    assert (refused.value, late.value, SHED.value) == (before[0] + 1, before[1] + 1, before[2] + 1)
    unlock(admin)
    assert await held == b"free"
    assert pool.counts() == (1, 0, 0)


@pytest.mark.parametrize("options", [{"max_size": 1}])
async def test_a_connection_that_the_server_closed_is_replaced(pool: StockPool, admin: Admin) -> None:
    """After the read that finds it closed, which fails."""
    pid = await value(pool, PID)
    admin.execute(f"SELECT pg_terminate_backend({int(pid or 0)}, 5000)")
    with pytest.raises(psycopg.OperationalError):
        await value(pool, PID)
    assert await value(pool, PID) not in (None, pid)


async def test_an_error_of_the_statement_is_psycopgs(pool: StockPool) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        await value(pool, Statement("SELECT 1 / %s", (Param("x"),)), x=0)
    assert await value(pool, ECHO, x=1) == b"1"


async def test_it_is_what_a_worker_opens(
    runner: asyncio.Runner, database: dict[str, Any], settings: Settings
) -> None:
    settings.RUNTIME = "stock"
    async with open_pool():
        (opened,) = pools.values()
        assert isinstance(opened, StockPool)
        assert (await fetch(ECHO, ECHO.bind({"x": "here"}))).get_value(0, 0) == b"here"
    assert not pools
