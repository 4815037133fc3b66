"""What the checks ask Postgres: whether the pools fit, and what a session is."""

import logging
import os
import threading
import time
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import OperationalError, connections
from pytest_django import Settings

from ops.postgres import connection_budget
from tests import spare
from tests.ops.checks.conftest import Find
from tests.service import PATIENCE, serve

EACH = (
    3 + settings.NATIVE_POOL.max_size + 4
)  # connections of a worker: sync pool, native pool, and the long ones


@pytest.fixture(autouse=True)
def _others(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than there are: tests beside this one have sessions in databases of their own, which come and go."""
    monkeypatch.setattr(connection_budget, "OTHER_CONNECTIONS", 100)


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """OPTIONS of the default database, for the test to change."""
    changed = dict(connections["default"].settings_dict["OPTIONS"])
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", changed)
    return changed


def test_only_where_a_database_is_named(settings: Settings, find: Find) -> None:
    settings.WEB_CONCURRENCY = 512
    assert find("W060") == []


def test_connections(settings: Settings, find: Find) -> None:
    settings.WEB_CONCURRENCY = 2
    assert find("W060", ["default"]) == []
    settings.WEB_CONCURRENCY = 512
    (message,) = find("W060", ["default"])
    with connection_budget.connect_outside_pools("default") as connection:
        most = connection.execute("SHOW max_connections").fetchone()[0]  # type: ignore[index]
    native = settings.NATIVE_POOL.max_size
    each = (
        f"3 of the sync pool + {native} of the native pool + 1 for imports + 1 for exports + 2 for statistics"
    )
    assert f"512 workers (WEB_CONCURRENCY) x ({each}) = {512 * EACH}" in message.msg
    assert f"{most} (max_connections) - 3 (superuser_reserved_connections)" in message.msg
    settings.DATABASE_POOLER = True
    assert find("W060", ["default"]) == []


def test_two_releases(settings: Settings, find: Find) -> None:
    """At the border: two of them fit, or one, or none."""
    room = connection_budget.ConnectionBudget.measure("default").room
    settings.WEB_CONCURRENCY = room // (2 * EACH)
    assert find("W063", ["default"]) == []
    settings.WEB_CONCURRENCY = room // (2 * EACH) + 1
    (message,) = find("W063", ["default"])
    connections_of_two = settings.WEB_CONCURRENCY * 2 * EACH
    assert f"{connections_of_two} while two releases run; Postgres has room for {room}:" in message.msg
    assert find("W060", ["default"]) == []
    settings.WEB_CONCURRENCY = room // EACH + 1
    assert find("W063", ["default"]) == []
    settings.WEB_CONCURRENCY = room // (2 * EACH) + 1
    settings.DATABASE_POOLER = True
    assert find("W063", ["default"]) == []


@pytest.mark.parametrize("name", ["application_name", "dbname"])
def test_sessions_of_others_take_room(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_budget, "OTHER_CONNECTIONS", 0)
    before = connection_budget.ConnectionBudget.measure("default").others
    with spare.create(f"test_others_{os.getpid()}") as database:
        other = {name: database.name}
        parameters = connections["default"].get_connection_params() | other
        others = [psycopg.connect(**parameters) for _ in range(before + 1)]
        try:
            assert connection_budget.ConnectionBudget.measure("default").others >= before + 1
        finally:
            for connection in others:
                connection.close()


@pytest.mark.parametrize(
    ("pool", "expected"), [({"max_size": 7}, 7), ({"min_size": 3}, 3), (True, 4), (None, 4), ({}, 4)]
)
def test_sizes_of_a_pool(options: dict[str, object], pool: object, expected: int) -> None:
    options["pool"] = pool
    assert connection_budget.ConnectionBudget.measure("default").sync == expected


def test_no_server(monkeypatch: pytest.MonkeyPatch, find: Find) -> None:
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "/nowhere")
    with pytest.raises(OperationalError, match="/nowhere"):
        find("W060", ["default"])


def test_report_of_no_server(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "HOST", "/nowhere")
    caplog.set_level(logging.DEBUG, "ops")
    report()
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def report() -> None:
    connection_budget.report()
    for thread in threading.enumerate():
        if thread.name == "connection budget":
            thread.join(PATIENCE)


def test_time_zone(options: dict[str, object], find: Find) -> None:
    options["options"] = "-c TimeZone=Etc/UTC -c lock_timeout=500"
    assert find("E061", ["default"]) == []
    options["options"] = "-c TimeZone=Europe/London -c lock_timeout=500"
    (message,) = find("E061", ["default"])
    assert "TimeZone = 'Europe/London', not 'UTC'" in message.msg
    options["options"] = "-c TimeZone=UTC -c lock_timeout=500 -c DateStyle=German"
    (message,) = find("E061", ["default"])
    assert "DateStyle = 'German', not 'ISO'" in message.msg


def test_session(settings: Settings, options: dict[str, object], find: Find) -> None:
    assert find("W062", ["default"]) == []
    settings.DATABASE_POOLER = True  # then the limits of requests are every session's
    assert "statement_timeout = '0', not '1000'" in " ".join(m.msg for m in find("W062", ["default"]))
    options["options"] = "-c TimeZone=UTC " + " ".join(
        f"-c {name}={value}" for name, value in (settings.SESSION | settings.REQUEST_SESSION).items()
    )
    assert find("W062", ["default"]) == []


@pytest.mark.parametrize(
    ("workers", "reuse_port", "level"),
    [
        (2, False, logging.INFO),
        (2, True, logging.INFO),
        (None, False, logging.INFO),
        (None, True, logging.WARNING),
        (512, False, logging.WARNING),
    ],
)
def test_report(
    settings: Settings, caplog: pytest.LogCaptureFixture, workers: int | None, *, reuse_port: bool, level: int
) -> None:
    """Without a number of `workers` one release fits, and two do not."""
    workers = workers or connection_budget.ConnectionBudget.measure("default").room // (2 * EACH) + 1
    settings.WEB_CONCURRENCY, settings.REUSE_PORT = workers, reuse_port
    caplog.set_level(logging.INFO, "ops")
    report()
    assert [record.levelno for record in caplog.records] == [level]
    assert f"{workers * EACH} connections at worst" in caplog.text


def test_the_service_reports_once(tmp_path: Path) -> None:
    with serve({}, tmp_path, workers=2) as service:
        assert service.client.get("/api/openapi.json").status_code == 200
        deadline = time.monotonic() + PATIENCE
        while b"at worst" not in service.log.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert service.log.read_text().count("= 28 connections at worst") == 1
