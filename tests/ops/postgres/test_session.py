"""What a database session may do, asked of the real server: requests are bounded, commands are not."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from django.conf import settings
from psycopg import sql
from pytest_django import Settings

from ops.postgres.options import startup_options
from ops.postgres.session import add_startup_parameters, verify
from tests import spare
from tests.service import serve

SHOW = """
from django.db import connection
with connection.cursor() as cursor:
    names = "statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout", "TimeZone"
    print([cursor.execute(f"SHOW {name}").fetchone()[0] for name in names])
connection.close_pool()
"""
# As a worker, once its lifespan has begun.
SERVE = """
import asyncio, config.asgi
async def enter(resource):
    async with resource(): pass
asyncio.run(enter(config.asgi.resources[0]))
"""
PROGRAMS = {
    "serving": [sys.executable, "-c", f"{SERVE}{SHOW}"],
    "command": [sys.executable, "manage.py", "shell", "--no-imports", "-c", SHOW],
}


@pytest.mark.parametrize(
    ("program", "expected"),
    [("serving", ["1s", "5s", "500ms", "UTC"]), ("command", ["0", "0", "500ms", "UTC"])],
)
def test_session_limits(program: str, expected: list[str]) -> None:
    root = Path(__file__).parents[3]
    shown = subprocess.run(
        PROGRAMS[program], cwd=root, capture_output=True, text=True, timeout=30, check=True
    )
    assert shown.stdout == f"{expected}\n"


def test_a_debuggers_prompt_in_a_transaction_ends_no_session() -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "DEBUG": "true"}
    shown = subprocess.run(
        PROGRAMS["serving"], cwd=root, env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert shown.stdout == "['1s', '0', '500ms', 'UTC']\n"


PASSWORD = "another"  # noqa: S105  for a Postgres that asks for one
OTHERWISE = {
    "TimeZone": "Asia/Kolkata",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "client_encoding": "LATIN1",
    "statement_timeout": "0",
}


@pytest.fixture(scope="module")
def other(django_db_setup: None) -> Iterator[str]:
    """The URL of a role whose sessions are otherwise, unless they ask for what they want."""
    database = spare.Database(str(settings.DATABASES["default"]["NAME"]))
    role = sql.Identifier(f"{database.name}_other")
    with database.connect() as server:
        server.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(role, PASSWORD))
        for name, value in OTHERWISE.items():
            where = sql.SQL("ALTER ROLE {} SET {} = {}")
            server.execute(where.format(role, sql.Identifier(name), sql.SQL(", ").join(value.split(", "))))
        yield f"postgresql://{quote(database.name)}_other:{PASSWORD}@{database.url.partition('@')[2]}"
        server.execute(sql.SQL("DROP ROLE {}").format(role))


def verified(url: str, options: str) -> None:
    async def connect() -> None:
        async with await psycopg.AsyncConnection.connect(url, options=options, autocommit=True) as opened:
            await verify(opened)

    asyncio.run(connect())


@pytest.mark.django_db
def test_a_session_that_asks_gets_what_it_wants(other: str, caplog: pytest.LogCaptureFixture) -> None:
    verified(other, startup_options(settings.SESSION | settings.REQUEST_SESSION))
    assert caplog.records == []


@pytest.mark.django_db
@pytest.mark.parametrize("name", sorted(settings.SESSION_FORMAT.keys() & OTHERWISE.keys()))
def test_a_session_that_spells_otherwise_is_refused(other: str, name: str) -> None:
    wanted = settings.SESSION | settings.REQUEST_SESSION
    del wanted[name]
    with pytest.raises(psycopg.OperationalError, match=rf" {name} = .* set DATABASE_POOLER"):
        verified(other, startup_options(wanted))


@pytest.mark.django_db
def test_a_session_without_limits_is_a_warning(
    other: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.DATABASE_POOLER = True
    for _ in range(2):
        verified(other, startup_options(settings.SESSION))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "statement_timeout = '0', not '1000'" in record.message
    assert "ALTER ROLE ... SET statement_timeout = '1000'" in record.message


@pytest.mark.django_db
def test_the_start_says_that_a_role_spells_otherwise(other: str, tmp_path: Path) -> None:
    """As behind a pooler: nothing is asked for. 503, rather than times in another zone."""
    with serve({"DATABASE_URL": other, "DATABASE_POOLER": "true"}, tmp_path) as service:
        service.wait_for(b"TimeZone = 'Asia/Kolkata', not 'UTC'")
        assert service.client.get("/api/products?limit=1").status_code == 503
    assert "ALTER ROLE ... SET TimeZone = 'UTC'" in (tmp_path / "service.log").read_text()


def test_limits_are_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options = settings.DATABASES["default"]["OPTIONS"]
    monkeypatch.setitem(options, "options", startup_options(settings.SESSION))
    add_startup_parameters()
    once = options["options"]
    add_startup_parameters()
    assert options["options"] == once
    assert "statement_timeout=1000" in once
