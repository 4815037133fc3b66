"""What the tests of compiled queries and of the pool stand on.

For compiled queries, a table for each of the tests' own models. For the pool, a Postgres of the module's own, which
may be stopped, killed and frozen; and event loops of both kinds, whose unheard exceptions fail the test.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from psycopg.pq.abc import PGresult
from pytest_django import Settings

from ops.postgres import through_django
from ops.postgres.pool import Pool
from ops.postgres.statement import Statement
from ops.tools.embedded.paths import LOCAL
from ops.tools.embedded.postgres import DATABASE, USER, Postgres
from ops.tools.embedded.servers import Servers
from tests.loops import pytest_pyfunc_call, runner, until
from tests.ops.postgres.models import TABLES
from tests.wiretap import Wiretap, tap

__all__ = ["pytest_pyfunc_call", "runner"]

Run = Callable[..., list[bytes | None]]
Admin = psycopg.Connection[Any]


@pytest.fixture
def tables(db: None) -> None:
    """In the test's own transaction, which undoes them."""
    with connection.schema_editor(atomic=False) as editor:
        for model in TABLES:
            editor.create_model(model)


def through_libpq(statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
    """As the native pool does it: the values in text format."""
    connection.ensure_connection()
    result: PGresult = connection.connection.pgconn.exec_params(statement.sql, parameters)
    assert not result.error_message, result.error_message.decode()
    return result


@pytest.fixture
def run(tables: None) -> Run:
    """Run a statement where the tables are, both ways, which answer the same."""

    def run(statement: Statement, **values: object) -> list[bytes | None]:
        ways = [each(statement, statement.bind(values)) for each in (through_libpq, through_django.fetch)]
        native, django = ([each.get_value(row, 0) for row in range(each.ntuples)] for each in ways)
        assert django == native
        return native

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        with Servers(LOCAL / f"test-{os.getpid()}-pool", durable=False) as servers:
            yield servers.postgres


@pytest.fixture
def admin(server: Postgres) -> Iterator[Admin]:
    """A session beside the pool's."""
    with psycopg.connect(server.url, autocommit=True) as session:
        yield session


@pytest.fixture
def database(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Django's default database, which is the module's own for now."""
    parameters: dict[str, Any] = connections["default"].settings_dict
    where = {"HOST": str(server.sockets), "PORT": "", "USER": USER, "PASSWORD": "", "NAME": DATABASE}
    for name, value in where.items():
        monkeypatch.setitem(parameters, name, value)
    return parameters


@pytest.fixture
def wire(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Wiretap]:
    """What the pool says to Postgres."""
    directory = tmp_path_factory.mktemp("tap")
    with tap(database.copy(), directory) as wire:
        monkeypatch.setitem(database, "HOST", str(directory))
        monkeypatch.setitem(database, "PORT", "1")
        yield wire


@pytest.fixture
def options() -> dict[str, Any]:
    """Of the pool; to be overridden by parametrize."""
    return {}


@pytest.fixture
def pool(
    runner: asyncio.Runner, database: dict[str, Any], settings: Settings, options: dict[str, Any]
) -> Iterator[Pool]:
    """An open pool, which must have lost no connection in the end."""
    settings.NATIVE_POOL = replace(settings.NATIVE_POOL, **options)
    pool = Pool()
    runner.run(pool.open())
    yield pool
    runner.run(settled(pool))
    runner.run(pool.close())
    assert not pool.borrowed
    assert not pool.idle


async def settled(pool: Pool) -> None:
    """When all connections of the pool are idle."""
    await until(lambda: {*pool.idle} == {*pool.borrowed} and not pool.waiting)
    assert len(pool.idle) == len(pool.borrowed)
