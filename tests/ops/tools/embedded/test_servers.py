"""Postgres and Valkey through starts, stops, kills and what these leave behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from ops.tools.embedded import account
from ops.tools.embedded.console import Failure, until
from ops.tools.embedded.paths import ROOT, postgres_program
from ops.tools.embedded.servers import Servers
from ops.tools.embedded.valkey import Valkey

SUPERVISOR = """
import sys; from pathlib import Path; from ops.tools.embedded.servers import Servers
with Servers(Path(sys.argv[1])):
    print("started", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def no_servers_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def servers(short_path: Path) -> Iterator[Servers]:
    with Servers(short_path / "servers") as running:
        yield running


def query(servers: Servers, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(servers.environment["DATABASE_URL"], autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_both_answer_and_leave_nothing(short_path: Path) -> None:
    with Servers(short_path / "servers", durable=False) as servers:
        assert query(servers, "show fsync") == [("off",)]
        with redis.Redis.from_url(servers.environment["REDIS_URL"]) as client:
            assert client.ping()
    assert not servers.postgres.alive()
    assert not servers.valkey.alive()
    assert not servers.directory.exists()


def test_an_interrupted_start_leaves_nothing(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_server: Valkey, _lock: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Valkey, "launch", interrupted)
    servers = Servers(short_path / ("long " * 20) / "servers", durable=False)
    sockets = servers.postgres.sockets
    with pytest.raises(KeyboardInterrupt):
        servers.__enter__()
    assert not servers.postgres.alive()
    assert not servers.directory.exists()
    assert not sockets.exists()


def test_others_cannot_open_the_sockets(servers: Servers) -> None:
    assert servers.postgres.sockets.stat().st_mode & 0o077 == 0
    assert query(servers, "show listen_addresses") == [("",)]
    with redis.Redis.from_url(servers.environment["REDIS_URL"], decode_responses=True) as client:
        assert client.config_get("port") == {"port": "0"}


def test_data_outlive_a_restart(servers: Servers) -> None:
    query(servers, "create table kept as select 1 as x")
    servers.postgres.stop()
    servers.postgres.start()
    assert query(servers, "select x from kept") == [(1,)]


def test_the_last_user_stops_the_servers(servers: Servers) -> None:
    with Servers(servers.directory) as second:
        assert second.postgres.pid == servers.postgres.pid
    assert query(servers, "select 1") == [(1,)]


def test_servers_of_a_killed_supervisor_are_adopted(short_path: Path) -> None:
    directory = short_path / "servers"
    command = [sys.executable, "-c", SUPERVISOR, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout
        assert supervisor.stdout.readline() == b"started\n"
        supervisor.kill()
    left = Servers(directory)
    assert left.postgres.alive()
    pids = left.postgres.pid, left.valkey.pid
    with Servers(directory) as adopter:
        assert (adopter.postgres.pid, adopter.valkey.pid) == pids
    assert not left.postgres.alive()
    assert not left.valkey.alive()


def test_killed_servers_start_again(servers: Servers) -> None:
    query(servers, "create table kept as select 1 as x")
    for server in (servers.postgres, servers.valkey):
        os.kill(server.pid, signal.SIGKILL)
        until(lambda server=server: not server.answers(), "the kill")  # type: ignore[misc]
        server.start()
    assert query(servers, "select x from kept") == [(1,)]


def by_hand(servers: Servers, *command: str) -> None:
    """What a user does with pg_ctl, beside the servers."""
    owner = account.choose(servers.directory)
    subprocess.run(
        [*owner.prefix, postgres_program("pg_ctl"), *command, "-D", servers.postgres.data],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )


def test_a_postgres_that_was_restarted_by_hand_is_used_and_left_alone(servers: Servers) -> None:
    by_hand(servers, "restart")
    postgres = servers.postgres
    pid = postgres.pid
    try:
        with Servers(servers.directory) as second:
            assert query(second, "select 1") == [(1,)]
        servers.stop_unused()
        postgres.start()
        postgres.stop()
        assert postgres.pid == pid
        assert query(servers, "select 1") == [(1,)]
    finally:
        by_hand(servers, "stop")
    postgres.start()
    assert postgres.alive()


def test_a_postgres_with_other_settings_on_the_same_data_is_one_line(servers: Servers) -> None:
    postgres = servers.postgres
    postgres.stop()
    by_hand(servers, "start", "-o", f"-k '{servers.directory / 'postgres'}' -c listen_addresses=")
    pid = postgres.pid
    try:
        with pytest.raises(Failure, match=rf"was started by hand on .*: stop it with `kill -INT {pid}`"):
            postgres.start()
        assert postgres.pid == pid
    finally:
        by_hand(servers, "stop")


def test_a_pid_that_is_now_another_process_is_stale(servers: Servers) -> None:
    """As after a restart of a container, where the few first pids are always taken."""
    postgres = servers.postgres
    lines = postgres.pid_file.read_text().splitlines(keepends=True)
    postgres.stop()
    stale = "".join([f"{os.getpid()}\n", *lines[1:]])
    postgres.pid_file.write_text(stale)
    (postgres.sockets / f"{postgres.socket_name}.lock").write_text(stale)
    postgres.start()
    assert postgres.pid != os.getpid()
    assert query(servers, "select 1") == [(1,)]


def test_a_half_made_cluster_is_made_anew(short_path: Path) -> None:
    unfinished = short_path / "servers/postgres.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with Servers(short_path / "servers") as servers:
        assert query(servers, "select 1") == [(1,)]
    assert not unfinished.exists()


def test_a_server_that_the_environment_names_is_used(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somewhere/else")
    with Servers(short_path / "servers") as servers:
        assert servers.environment["DATABASE_URL"] == "postgresql://somewhere/else"
        assert not servers.postgres.alive()
        assert servers.valkey.alive()


def test_its_address_may_be_in_a_file(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the service reads it: then there is no other in DATABASE_URL."""
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/database")
    with Servers(short_path / "servers") as servers:
        assert {*servers.environment} == {"REDIS_URL"}
        assert not servers.postgres.alive()


def test_a_long_path_puts_the_sockets_elsewhere(short_path: Path) -> None:
    directory = short_path / ("long " * 20) / "servers"
    with Servers(directory, durable=False) as servers:
        assert query(servers, "select 1") == [(1,)]
        sockets = servers.postgres.sockets
        assert not sockets.is_relative_to(directory)
    assert not sockets.exists()
