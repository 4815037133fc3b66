"""`make up` in a checkout that has a virtual environment and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql

from ops.tools.embedded import locks
from ops.tools.embedded.servers import Servers

from .conftest import Checkout

ANY_ROW = sql.SQL("SELECT 1 FROM {} LIMIT 1")


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    (checkout.root / ".venv").symlink_to(sys.prefix)
    return checkout


@pytest.fixture
def servers(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Those of a user, in the place of `make up`'s."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    with Servers(short_path / "servers") as running:
        yield running


def until_serving(process: "subprocess.Popen[str]") -> list[str]:
    """Read until it says that it serves; return what it said before."""
    assert process.stdout
    said = list(takewhile(lambda line: "Ctrl-C stops everything" not in line, process.stdout))
    assert process.poll() is None, said
    return said


def alive(checkout: Checkout) -> list[str]:
    """Name the processes that are left."""
    local = checkout.root / ".local"
    every = (local / "gunicorn.lock", local / "stand-ins.lock", *(local / "servers").glob("*.lock"))
    return [path.stem for path in every if locks.held(path)]


def test_serves_then_stops_everything(ready: Checkout, free_port: int) -> None:
    port = str(free_port)
    with ready.start("up", PORT=port, WEB_CONCURRENCY="1") as process:
        said = until_serving(process)
        (shown,) = [line.split()[1] for line in said if line.strip().startswith("curl ")]
        assert httpx.get(shown).status_code == 200
        second = ready.run("up", PORT=port)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert second == (1, "error: `make up` of this checkout is running already\n")
    assert process.returncode == 0
    assert alive(ready) == []
    assert (ready.root / ".local/secret_key").stat().st_mode & 0o077 == 0


def test_replaces_one_whose_supervisor_was_killed(ready: Checkout, free_port: int) -> None:
    variables = {"PORT": str(free_port), "WEB_CONCURRENCY": "1"}
    with ready.start("up", **variables) as first:
        until_serving(first)
        first.kill()
        first.wait()
        assert set(alive(ready)) >= {"gunicorn", "postgres", "valkey"}
        with ready.start("up", **variables) as second:
            until_serving(second)
            os.killpg(second.pid, signal.SIGINT)
            second.communicate(timeout=30)
    assert alive(ready) == []


def test_a_port_in_use_is_one_line_before_any_work(checkout: Checkout, used_port: int) -> None:
    status, said = checkout.run("up", PORT=str(used_port))
    assert status == 1
    assert said == f"error: PORT {used_port} is in use; another one: `PORT=8001 make up`\n"
    assert not (checkout.root / ".venv").exists()


def test_a_bad_setting_is_one_line_before_any_server(ready: Checkout, free_port: int) -> None:
    status, said = ready.run("up", PORT=str(free_port), LOG_LEVEL="loud")
    assert status == 1
    assert said.startswith("error: LOG_LEVEL ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_a_database_that_cannot_be_reached_is_one_line(ready: Checkout, free_port: int, host: str) -> None:
    url = f"postgresql://user:s3cret@{host}:{free_port}/shop"
    status, said = ready.run("up", PORT=str(free_port), DATABASE_URL=url)
    assert status == 1
    started, migrated, line = said.splitlines()
    assert (started[:17], migrated[:12]) == ("Start valkey ... ", "Migrate ... ")
    assert line.startswith(f"error: DATABASE_URL: no connection to {host}: ")
    assert "s3cret" not in line


def test_nothing_is_made_up_in_a_database_of_the_user(
    ready: Checkout, servers: Servers, free_port: int
) -> None:
    url = servers.environment["DATABASE_URL"]
    with ready.start("up", PORT=str(free_port), WEB_CONCURRENCY="1", DATABASE_URL=url) as process:
        said = until_serving(process)
    assert any('`make manage ARGS="seed"`' in line for line in said)
    with psycopg.connect(url) as database:
        tables = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        found = {
            name for (name,) in tables if database.execute(ANY_ROW.format(sql.Identifier(name))).fetchone()
        }
    assert found == {"django_migrations"}


def test_a_directory_that_cannot_be_written_is_one_line(checkout: Checkout) -> None:
    Path(checkout.root / ".local").write_text("in the way")
    status, said = checkout.run("up")
    assert status == 1
    assert said == f"error: [Errno 17] File exists: '{checkout.root}/.local'\n"


def test_a_sql_prompt_needs_no_psql_of_the_user(ready: Checkout, tmp_path: Path) -> None:
    for name in ("sh", "setpriv", "unshare"):  # by which root starts Postgres as another user
        if program := shutil.which(name):
            (tmp_path / name).symlink_to(program)
    status, said = ready.run("manage", "dbshell", "--", "-c", "SELECT 6 * 7 AS answer", PATH=str(tmp_path))
    assert (status, said.split()[:3]) == (0, ["answer", "--------", "42"])
