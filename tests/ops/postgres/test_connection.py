"""One connection of the pool: what it says to Postgres, and what it makes of what Postgres says."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import OperationalError, ProgrammingError, errors

from ops.postgres.connection import MAX_PREPARED_STATEMENTS
from ops.postgres.pool import Pool
from ops.postgres.statement import Param, Statement
from tests.loops import until
from tests.ops.postgres.conftest import Admin, settled
from tests.wiretap import Wiretap

ECHO = Statement("SELECT %s::text", (Param("x"),), quick=True)
PID = Statement("SELECT pg_backend_pid()", (), quick=True)
ONE = {"max_size": 1}
MEGABYTE = 2**20


async def value(pool: Pool, statement: Statement, **values: Any) -> bytes | None:
    result = await pool.fetch(statement, statement.bind(values))
    return result.get_value(0, 0)


@pytest.fixture
def one(pool: Pool) -> Iterator[Pool]:
    """A pool of one connection, which it keeps."""
    (connection,) = pool.idle
    yield pool
    assert [*pool.borrowed] == [connection]


@pytest.mark.parametrize("options", [{"max_size": 1}])  # a second one, being opened, would be heard, too
async def test_one_round_trip_once_prepared(wire: Wiretap, pool: Pool) -> None:
    wire.clear()
    assert await value(pool, ECHO, x="first") == b"first"
    assert "".join(message.kind for message in wire.messages) == "PBDES"
    wire.clear()
    for number in range(10):
        assert await value(pool, ECHO, x=str(number)) == b"%d" % number
    assert "".join(message.kind for message in wire.messages) == "BDES" * 10
    assert not wire.statements


@pytest.mark.parametrize("options", [{"prepare": False, "max_size": 1}])
async def test_unprepared(wire: Wiretap, one: Pool) -> None:
    """As PgBouncer wants it: a nameless statement, also after an error."""
    wire.clear()
    for number in range(3):
        assert await value(one, ECHO, x=number) == b"%d" % number
    assert "".join(message.kind for message in wire.messages) == "PBDES" * 3
    assert {message.statement for message in wire.messages} == {""}
    with pytest.raises(errors.FeatureNotSupported):
        await value(one, Statement("SELECT count(*) FROM pg_class FOR UPDATE", ()))
    assert await value(one, ECHO, x="again") == b"again"


@pytest.mark.parametrize("options", [ONE])
async def test_more_statements_than_stay_prepared(one: Pool) -> None:
    statements = [Statement(f"SELECT {number}", ()) for number in range(MAX_PREPARED_STATEMENTS + 5)]
    for _ in range(2):
        for number, statement in enumerate(statements):
            assert await value(one, statement) == b"%d" % number
    count = Statement("SELECT count(*) FROM pg_prepared_statements", ())
    assert await value(one, count) == b"%d" % MAX_PREPARED_STATEMENTS
    last = statements[-1]
    names = Statement("SELECT array_to_string(array_agg(name), ',') FROM pg_prepared_statements", ())
    kept = await value(one, names)
    assert kept
    assert last.name in kept.split(b",")


@pytest.mark.parametrize("options", [ONE])
@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELECT 1 / %s::int", errors.DivisionByZero),  # as it runs
        ("SELECT 1 / length(%s) FROM no_such_table", errors.UndefinedTable),  # as it is prepared
        ("SELECT count(%s::text) FROM pg_class FOR UPDATE", errors.FeatureNotSupported),
    ],
)
async def test_after_an_error(one: Pool, sql: str, error: type[Exception]) -> None:
    failing = Statement(sql, (Param("x"),))
    before = await value(one, PID)
    for _ in range(3):
        with pytest.raises(error):
            await value(one, failing, x="0")
        assert await value(one, PID) == before


@pytest.mark.parametrize("options", [ONE])
async def test_statement_timeout(one: Pool) -> None:
    before = await value(one, PID)
    await value(one, Statement("SELECT set_config('statement_timeout', '50', false)", ()))
    with pytest.raises(errors.QueryCanceled):
        await value(one, Statement("SELECT pg_sleep(5)", ()))
    assert await value(one, PID) == before


async def test_a_plan_whose_columns_change_their_type(pool: Pool, admin: Admin) -> None:
    """As a migration does it to all connections at once; the next query of each succeeds."""
    admin.execute("CREATE TABLE migrated AS SELECT 7 AS number")
    read = Statement("SELECT number FROM migrated, pg_sleep(0.01)", ())
    try:
        for kind, expected in [("int", b"7"), ("text", b"7"), ("numeric(9, 2)", b"7.00"), ("int", b"7")]:
            admin.execute(f"ALTER TABLE migrated ALTER number TYPE {kind} USING number::{kind}")
            everyone = await asyncio.gather(*(value(pool, read) for _ in range(8)))
            assert everyone == [expected] * 8
    finally:
        admin.execute("DROP TABLE migrated")


@pytest.mark.parametrize("options", [ONE])
async def test_statements_deallocated_by_others(one: Pool) -> None:
    before = await value(one, PID)
    deallocate = Statement("DEALLOCATE ALL", ())
    for _ in range(3):
        assert await value(one, ECHO, x="still") == b"still"
        await one.fetch(deallocate, [])
    assert await value(one, PID) == before


@pytest.mark.parametrize("options", [{"max_size": 1, "borrow": 0.0}])
async def test_what_is_prepared_outlives_the_loan(pool: Pool) -> None:
    """The connection goes back to psycopg's pool and comes again with all that is prepared on it."""
    before = await value(pool, PID)
    for _ in range(2):
        await settled(pool)
        await until(lambda: not pool.borrowed)
        assert await value(pool, PID) == before


@pytest.mark.parametrize("options", [ONE, {"max_size": 1, "prepare": False}])
async def test_large_parameters_and_results(one: Pool) -> None:
    text = "é\\" * MEGABYTE
    assert await value(one, ECHO, x=text) == text.encode()
    repeat = Statement("SELECT repeat(%s, %s)", (Param("text"), Param("times")))
    assert await value(one, repeat, text="x", times=8 * MEGABYTE) == b"x" * 8 * MEGABYTE
    everyone = await asyncio.gather(*(value(one, ECHO, x=text) for _ in range(4)))
    assert everyone == [text.encode()] * 4


@pytest.mark.parametrize("options", [ONE])
async def test_notices(one: Pool, admin: Admin) -> None:
    admin.execute("""
        CREATE OR REPLACE FUNCTION noisy(many int) RETURNS int LANGUAGE plpgsql AS
        $$BEGIN FOR n IN 1..many LOOP RAISE NOTICE '%', repeat('x', 1000); END LOOP; RETURN many; END$$
    """)
    noisy = Statement("SELECT noisy(%s)", (Param("many"),))
    for many in (1, 300, 2):
        assert await value(one, noisy, many=many) == b"%d" % many
    await value(one, Statement("SELECT set_config('TimeZone', 'Asia/Tokyo', false)", ()))  # reported, too
    assert await value(one, ECHO, x=1) == b"1"


@pytest.mark.parametrize("options", [ONE])
async def test_values_postgres_refuses(one: Pool) -> None:
    number = Statement("SELECT %s::int", (Param("x"),))
    for refused in ("x", 2**31, ""):
        with pytest.raises(errors.DataError):
            await value(one, number, x=refused)
    assert await value(one, number, x=5) == b"5"


async def test_errors_are_psycopgs(pool: Pool) -> None:
    with pytest.raises(ProgrammingError) as caught:
        await value(pool, Statement("SELECT nothing", ()))
    assert not isinstance(caught.value, OperationalError)
    assert caught.value.sqlstate == "42703"
    assert caught.value.diag.message_primary == 'column "nothing" does not exist'
