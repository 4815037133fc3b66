"""COPY out: every row once and as it is, in batches, and an end in any case."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from itertools import pairwise
from time import monotonic

import pytest
from psycopg import errors
from pytest_django import Settings

from ops.postgres.connection import ResponseTimeout
from ops.postgres.copy_out import BATCH_BYTES, CSV, TEXTS, copy_out
from ops.postgres.pool import Pool, pools
from tests.extra import OWN_SESSIONS
from tests.loops import until
from tests.ops.postgres.conftest import Admin

COPYING = f"SELECT pid FROM {OWN_SESSIONS} AND query LIKE 'COPY (%' AND state = 'active'"
# Large rows: small ones wait in Postgres until 8 kB are together.
SLOW = """
    SELECT CASE WHEN n > %s THEN pg_sleep(60)::text ELSE repeat('x', 10000) END FROM generate_series(1, 100) AS n
"""


@contextmanager
def opened(pool: Pool) -> Iterator[None]:
    """With the pool known, a COPY has a connection of its own."""
    loop = asyncio.get_running_loop()
    pools[loop] = pool
    try:
        yield
    finally:
        del pools[loop]


async def batches_of(query: str, *values: str, form: str = TEXTS) -> list[list[bytes]]:
    return [[bytes(row) for row in batch] async for batch in copy_out(query, values, form)]


@pytest.mark.parametrize("form", [TEXTS, CSV])
@pytest.mark.parametrize("size", [1, 100, 20_000, 300_000])
async def test_rows(pool: Pool, form: str, size: int) -> None:
    """However large they are beside libpq's buffer, and however many."""
    number = min(20_000, 6_000_000 // size)
    query = f"SELECT lpad(n::text, {size}, '.') FROM generate_series(1, {number}) AS n"
    with opened(pool):
        batches = await batches_of(query, form=form)
    end = b"\n" if form == CSV else b""
    expected = [str(n).rjust(size, ".")[:size].encode() + end for n in range(1, number + 1)]
    assert [row for batch in batches for row in batch] == expected
    assert all(sum(map(len, batch)) < BATCH_BYTES + size + 10 for batch in batches)


@pytest.mark.parametrize(
    "text", ["", "\\", "\x01\x02\n\r\t", "PGCOPY\n\xff\r\n\0"[:-1], "%s 'é' $1 \\N", "\uffff"]
)
async def test_texts_are_as_they_are(pool: Pool, text: str) -> None:
    with opened(pool):
        assert await batches_of("SELECT %s::text || '%%'", text) == [[text.encode() + b"%"]]


@pytest.mark.parametrize("form", [TEXTS, CSV])
async def test_no_rows(pool: Pool, form: str) -> None:
    with opened(pool):
        assert await batches_of("SELECT 'x' WHERE false", form=form) == []


async def test_the_first_rows_come_at_once(pool: Pool, admin: Admin) -> None:
    """Those after them within a moment; and who stops to read them stops Postgres."""
    with opened(pool):
        async with aclosing(copy_out(SLOW, ["7"], TEXTS)) as batches:
            rows = 0
            async with asyncio.timeout(10):
                while rows < 6:
                    rows += len(await anext(batches))
            assert len(admin.execute(COPYING).fetchall()) == 1
        await until(lambda: not admin.execute(COPYING).fetchall(), 2)


async def test_a_cancelled_reader(pool: Pool, admin: Admin) -> None:
    with opened(pool):
        reading = asyncio.create_task(batches_of(SLOW, "0"))
        await until(lambda: admin.execute(COPYING).fetchall())
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: not admin.execute(COPYING).fetchall(), 2)


async def test_errors(pool: Pool, admin: Admin) -> None:
    """At once, in the middle, and from a server that ends the session."""
    with opened(pool):
        with pytest.raises(errors.UndefinedTable):
            await batches_of("SELECT * FROM nowhere")
        with pytest.raises(errors.DivisionByZero):
            await batches_of("SELECT (1 / (9000 - n))::text FROM generate_series(1, 10000) n", form=CSV)
        batches = copy_out(SLOW, ["7"], TEXTS)
        await anext(batches)
        [[pid]] = admin.execute(COPYING).fetchall()
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        with pytest.raises(errors.AdminShutdown):
            [_ async for _ in batches]


async def test_it_only_reads(pool: Pool) -> None:
    with opened(pool):
        assert await batches_of("SELECT current_setting('transaction_read_only')") == [[b"on"]]


async def test_a_limit_of_time(pool: Pool, settings: Settings) -> None:
    settings.EXPORT_SECONDS = 0.2
    with opened(pool), pytest.raises(errors.QueryCanceled):
        await batches_of(SLOW, "0")


async def test_a_silent_postgres(pool: Pool, admin: Admin, settings: Settings) -> None:
    """It is frozen, and answers no cancel either."""
    settings.STREAM_PATIENCE_SECONDS = 0.3
    with opened(pool):
        batches = copy_out(SLOW, ["7"], TEXTS)
        await anext(batches)
        [[pid]] = admin.execute(COPYING).fetchall()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = monotonic()
            with pytest.raises(ResponseTimeout):
                [_ async for _ in batches]
            assert monotonic() - began < 5
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: not admin.execute(COPYING).fetchall(), 2)


async def test_others_have_their_turn(pool: Pool) -> None:
    """Between two batches, also if both Postgres and the reader are faster."""
    turns: list[int] = []
    read = 0

    async def other() -> None:
        while True:
            turns.append(read)
            await asyncio.sleep(0)

    with opened(pool):
        task = asyncio.create_task(other())
        query = "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"
        async for batch in copy_out(query, [], TEXTS):
            read += len(batch)
        task.cancel()
    assert max(after - before for before, after in pairwise(turns)) < 100
