"""What fills in a statement's values: each type of Python's, bound as text and read back by Postgres as it was."""

import datetime
import uuid
from collections.abc import Sequence
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from django.db import connection, models
from django.db.models.functions import Cast
from psycopg import DataError, ProgrammingError

from ops.postgres.compiled import One
from ops.postgres.statement import Param, Statement
from tests.ops.postgres.conftest import Run
from tests.ops.postgres.many import Many
from tests.ops.postgres.models import Colour, Grade
from tests.shop.models import Product
from tests.shop.schemas import ProductOut

UTC = datetime.UTC
BERLIN = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        (None, "text", None),
        (True, "bool", "true"),
        (False, "bool", "false"),
        (0, "int", "0"),
        (-(2**63), "bigint", "-9223372036854775808"),
        (2**63, "numeric", "9223372036854775808"),
        (0.1, "float8", "0.1"),
        (1e300, "float8", "1e+300"),
        (float("nan"), "float8", "NaN"),
        (float("-inf"), "float8", "-Infinity"),
        (Decimal("1E-7"), "numeric", "0.0000001"),
        (Decimal("NaN"), "numeric", "NaN"),
        ("", "text", ""),
        ('it\'s \\ "x" %s $1 :n {}\n😀', "text", 'it\'s \\ "x" %s $1 :n {}\n😀'),
        (Colour.BLUE, "text", "bl'ue\\"),
        (Grade.HIGH, "int", "7"),
        (b"\x00\xff'\\", "bytea", "\\x00ff275c"),
        ([b"'\\", None], "bytea[]", '{"\\\\x275c",NULL}'),
        (uuid.UUID(int=5), "uuid", "00000000-0000-0000-0000-000000000005"),
        (IPv4Address("192.0.2.1"), "inet", "192.0.2.1/32"),
        (IPv6Address("::ffff:1.2.3.4"), "inet", "::ffff:1.2.3.4/128"),
        (datetime.date(1, 1, 1), "date", "0001-01-01"),
        (datetime.date(9999, 12, 31), "date", "9999-12-31"),
        (datetime.datetime(1, 1, 2, 3, 4, 5, 6, UTC), "timestamptz", "0001-01-02 03:04:05.000006+00"),
        (datetime.datetime(2020, 1, 1, 1, tzinfo=BERLIN), "timestamptz", "2020-01-01 00:00:00+00"),
        (datetime.datetime(2020, 1, 1), "timestamp", "2020-01-01 00:00:00"),  # noqa: DTZ001
        (datetime.time(23, 59, 59, 999999), "time", "23:59:59.999999"),
        (datetime.timedelta(days=-400, microseconds=1), "interval", "-400 days +00:00:00.000001"),
        ([], "int[]", "{}"),
        ([1, None, 3], "int[]", "{1,NULL,3}"),
        (['a "b"', "c,\\", None, "NULL", "{}"], "text[]", '{"a \\"b\\"","c,\\\\",NULL,"NULL","{}"}'),
        ([[Decimal("1.5")], [Decimal(2)]], "numeric[]", "{{1.5},{2}}"),
    ],
)
def test_every_type(run: Run, value: Any, kind: str, read: str | None) -> None:
    statement = Statement(f"SELECT CAST(%s AS {kind})::text", (Param("value"),))
    assert run(statement, value=value) == [None if read is None else read.encode()]
    constant = Statement(f"SELECT CAST(%s AS {kind})::text", (value,))
    assert run(constant) == [None if read is None else read.encode()]


def test_what_cannot_be_bound() -> None:
    statement = Statement("SELECT %s", (Param("value"),))
    for value, error in [({}, ProgrammingError), (object(), ProgrammingError), ("a\0b", DataError)]:
        with pytest.raises(error):
            statement.bind({"value": value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"missing parameters: a, b; this query takes \['a', 'b'\]"),
        ({"a": 1}, "missing parameters: b;"),
        ({"a": 1, "b": 2, "c": 3}, "unknown .*: c;"),
    ],
)
def test_wrong_names(values: dict[str, int], message: str) -> None:
    statement = Statement("SELECT %s, %s", (Param("a"), Param("b")))
    with pytest.raises(TypeError, match=message):
        statement.bind(values)


@pytest.mark.parametrize(
    ("sql", "parameters", "expected"),
    [
        ("SELECT %s", 1, b"SELECT $1"),
        ("SELECT '100%%', %s, %%s, %s", 2, b"SELECT '100%', $1, %s, $2"),
        ("SELECT '%%%%', '%%%s', ':x', '$1'", 1, b"SELECT '%%', '%$1', ':x', '$1'"),
        ("SELECT " + ", ".join(["%s"] * 12), 12, b"SELECT " + b", ".join(b"$%d" % n for n in range(1, 13))),
    ],
)
def test_placeholders(sql: str, parameters: int, expected: bytes) -> None:
    statement = Statement(sql, tuple(Param(f"p{number}") for number in range(parameters)))
    assert statement.sql == expected
    bound = statement.bind({f"p{number}": number for number in range(parameters)})
    assert bound == [b"%d" % number for number in range(parameters)]


def test_constants_are_literals() -> None:
    constants = (1, Param("a"), "%s $1 '", Param("b"), datetime.timedelta(days=1))
    statement = Statement("SELECT %s, %s, %s, %s, now() - %s", constants)
    assert statement.sql == b"SELECT 1, $1, '%s $1 ''', $2, now() - '1 day 0:00:00'::interval"
    assert statement.bind({"b": 2, "a": 1}) == [b"1", b"2"]


def test_each_statement_has_a_name() -> None:
    first, second = Statement("SELECT 1", ()), Statement("SELECT 1", ())
    assert first.name != second.name
    assert len(first.name) < 64  # what Postgres keeps of a name


@pytest.mark.django_db
@pytest.mark.parametrize(
    "calls",
    [
        [{"least": Decimal(1)}, {"least": 1}, {"least": 2**40}, {"least": "1.50"}, {"least": None}],
        [{"least": 0.5}, {"least": float("nan")}],
    ],
)
def test_stable_types(run: Run, calls: Sequence[dict[str, Any]]) -> None:
    """Postgres infers the types from the SQL: whatever the values, they are the same, and so is the plan."""
    rows = Product.objects.filter(low_price__gte=Param("least")).order_by("id")
    statement = Many(rows, ProductOut, limit=1).rows.statement
    pgconn = connection.connection.pgconn
    pgconn.prepare(statement.name, statement.sql)
    described = pgconn.describe_prepared(statement.name)
    assert [described.param_type(at) for at in range(described.nparams)] == [1700]  # numeric
    for values in calls:
        result = pgconn.exec_prepared(statement.name, statement.bind(values))
        assert not result.error_message


def test_cast_where_the_place_leaves_the_type_open() -> None:
    rows = Product.objects.annotate(
        wanted=Cast(Param("wanted", models.IntegerField()), models.IntegerField())
    )
    query = One(rows.filter(demand_qty=models.F("wanted")), ProductOut, ["id"])
    assert b"($1)::integer" in query.statement.sql
