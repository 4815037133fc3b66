"""DATABASE_POOLER against a real PgBouncer in transaction mode, whose two sessions all workers share.

PGBOUNCER may name another program than the one that is installed: one of 1.21 or newer carries prepared statements.
"""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlencode

import psycopg
import pytest
from django.conf import settings
from psycopg import sql

from ops.tools.embedded import account
from tests import spare
from tests.service import PATIENCE, Service, serve
from tests.wiretap import tap

PROGRAM = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(
        not PROGRAM, reason="needs pgbouncer, which Linux distributions package under this name"
    ),
]
PORT = 6432
PASSWORD = "pooled"  # noqa: S105  for a Postgres that asks for one
CHECK = ("check", "--tag", "performance", "--database", "default")
CONFIGURATION = """
[databases]
* = {server}
[pgbouncer]
unix_socket_dir = {directory}
unix_socket_mode = 0777
listen_port = {port}
auth_type = trust
auth_file = {directory}/users
logfile = {directory}/pgbouncer.log
"""
TRANSACTION = """
pool_mode = transaction
default_pool_size = 2
"""
SESSION = """
pool_mode = session
default_pool_size = 20
"""


class Pooler(NamedTuple):
    directory: Path
    database: str

    def url(self, role: str) -> str:
        where = urlencode({"host": self.directory, "port": PORT})
        return f"postgresql://{quote(role)}@/{quote(self.database)}?{where}"

    def check(self, role: str, pooler: str = "1") -> str:
        """What `manage.py check` says through it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DATABASE_POOLER", pooler)
            patch.setattr(spare.Database, "url", self.url(role))
            checked = spare.Database(self.database).manage(*CHECK)
        return checked.stdout + checked.stderr


@pytest.fixture(scope="module")
def roles(django_db_setup: None) -> Iterator[dict[str, str]]:
    """Two roles: `limited` brings what the settings want of a session, `bare` another time zone and no limits."""
    name = str(settings.DATABASES["default"]["NAME"])
    wanted: dict[str, object] = settings.SESSION | settings.REQUEST_SESSION
    defaults: dict[str, dict[str, object]] = {"limited": wanted, "bare": {"TimeZone": "Europe/Berlin"}}
    with spare.Database(name).connect() as server:
        for kind, values in defaults.items():
            role = sql.Identifier(f"{name}_{kind}")
            server.execute(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(role, PASSWORD))
            for setting, value in values.items():
                where = sql.SQL("ALTER ROLE {} SET {} = {}")
                server.execute(where.format(role, sql.Identifier(setting), sql.Literal(str(value))))
        yield {kind: f"{name}_{kind}" for kind in defaults}
        for kind in defaults:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(f"{name}_{kind}")))


@pytest.fixture(scope="module")
def pooler(roles: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooler]:
    with pgbouncer(roles, tmp_path_factory.mktemp("pgbouncer"), TRANSACTION) as running:
        yield running


@contextmanager
def pgbouncer(roles: dict[str, str], directory: Path, mode: str) -> Iterator[Pooler]:
    server = settings.DATABASES["default"]
    where = f"host={server['HOST']} port={server['PORT'] or 5432}"
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(CONFIGURATION.format(server=where, directory=directory, port=PORT) + mode)
    (directory / "users").write_text("".join(f'"{role}" "{PASSWORD}"\n' for role in roles.values()))
    as_whom = account.choose(directory)  # it refuses to be root, as Postgres does
    with subprocess.Popen([*as_whom.prefix, str(PROGRAM), "--quiet", configuration]) as process:
        try:
            _wait(directory / f".s.PGSQL.{PORT}", process)
            yield Pooler(directory, str(server["NAME"]))
        finally:
            process.terminate()


def _wait(path: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(0.02)
    raise AssertionError("pgbouncer does not listen")


def test_the_service_answers_the_same(
    pooler: Pooler, roles: dict[str, str], service: Service, tmp_path: Path
) -> None:
    paths = [
        *(f"/api/products?limit={limit}&sort={sort}" for limit in (1, 7) for sort in ("id", "-low_price")),
        *("/api/products/1", "/api/categories", "/api/products?category=books&fields=id,category"),
    ]
    environment = {"DATABASE_URL": pooler.url(roles["limited"]), "DATABASE_POOLER": "1"}
    with serve(environment, tmp_path, workers=2) as pooled, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(pooled.client.get, paths * 20))
    for path, answer in zip(paths * 20, answers, strict=True):
        assert (answer.status_code, answer.content) == (200, service.client.get(path).content)
    log = (tmp_path / "service.log").read_text()
    assert "WARNING" not in log
    assert "at worst" not in log  # PgBouncer bounds the connections


def test_the_roles_defaults_are_checked(pooler: Pooler, roles: dict[str, str]) -> None:
    assert "no issues" in pooler.check(roles["limited"])
    said = pooler.check(roles["bare"])
    assert "(ops.E061)" in said
    for name in {"lock_timeout", *settings.REQUEST_SESSION}:
        assert f"has {name} = " in said


def test_prepared(
    roles: dict[str, str], service: Service, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """By name, in the protocol; before 1.21 only a session of one's own keeps what was prepared."""
    said = subprocess.run([str(PROGRAM), "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"\d+", said)[:2]
    carries = (int(major), int(minor)) >= (1, 21)
    mode = f"{TRANSACTION}\nmax_prepared_statements = 10\n" if carries else SESSION
    paths = [f"/api/products?limit={limit}&sort=id" for limit in range(1, 16)]
    where = {"HOST": tmp_path, "PORT": PORT, "USER": roles["limited"], "PASSWORD": PASSWORD}
    database = settings.DATABASES["default"] | where
    with pgbouncer(roles, tmp_path, mode), tap(database, tmp_path_factory.mktemp("tap")) as wire:
        environment = {"DATABASE_URL": wire.url, "DATABASE_POOLER": "prepared"}
        with serve(environment, tmp_path) as pooled, ThreadPoolExecutor(8) as threads:
            pooled.client.get("/livez")
            wire.clear()  # what the worker has read to warm up
            answers = list(threads.map(pooled.client.get, paths * 8))
    for path, answer in zip(paths * 8, answers, strict=True):
        assert (answer.status_code, answer.content) == (200, service.client.get(path).content)
    reads = [
        message for message in wire.messages if message.kind == "B" and message.statement.startswith("s")
    ]
    named = [
        message for message in wire.messages if message.kind == "P" and message.statement.startswith("s")
    ]
    assert len(reads) >= len(answers)  # more where one was held up, and those behind it were sent elsewhere
    assert 0 < len(named) <= 2 * len(paths)  # once for each connection of quick statements


def test_a_pooler_that_ignores_what_a_session_asks_for_is_named(
    roles: dict[str, str], tmp_path: Path
) -> None:
    ignoring = f"{SESSION}\nignore_startup_parameters = options\n"
    with pgbouncer(roles, tmp_path, ignoring) as pooler:
        with serve({"DATABASE_URL": pooler.url(roles["bare"])}, tmp_path) as service:
            service.wait_for(b"did not arrive: if a pooler stands between, set DATABASE_POOLER")
            refused = (
                "TimeZone = 'Europe/Berlin', not 'UTC'" in service.log.read_text()
            )  # from 1.20 on it comes through
            assert service.client.get("/api/products/1").status_code == (503 if refused else 200)
        assert ("(ops.E061)" if refused else "(ops.W062)") in pooler.check(roles["bare"], pooler="")


def test_without_the_setting(pooler: Pooler, roles: dict[str, str]) -> None:
    said = pooler.check(roles["limited"], pooler="")
    assert "unsupported startup parameter" in said
    assert "Traceback" not in said


def test_sessions_are_shared(pooler: Pooler, roles: dict[str, str]) -> None:
    """What the other tests rest on: many clients, few sessions."""
    clients = [psycopg.connect(pooler.url(roles["limited"]), autocommit=True) for _ in range(5)]
    sessions = {client.execute("SELECT pg_backend_pid()").fetchone() for client in clients}
    for client in clients:
        client.close()
    assert len(sessions) <= 2
