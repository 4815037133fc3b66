"""Each check fires on the one setting that it is about; on the service's own settings all are quiet."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.core.checks import registry
from pytest_django import Settings

from ops.checks import cache
from tests.ops.checks.conftest import Find

ROOT = Path(__file__).parents[3]
MIXIN = "django.middleware.common.CommonMiddleware"
SYNC = "tests.ops.checks.test_settings.sync_middleware"


def sync_middleware(get_response: Any) -> Any:
    return get_response


class Wrapped:
    """A layer of somebody's own."""

    def __init__(self, application: object) -> None:
        self.application = application

    async def __call__(self, *_: object) -> None: ...


wrapped = Wrapped(None)


@pytest.mark.parametrize(
    ("pooler", "asks"),
    [("", ["--tag", "performance", "--database", "default"]), ("1", [])],
    ids=["Postgres", "behind a pooler"],
)
def test_the_service_is_quiet(pooler: str, asks: list[str]) -> None:
    checked = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", *asks],
        cwd=ROOT,
        env=os.environ | {"DATABASE_POOLER": pooler},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert checked.stdout.startswith("System check identified no issues")
    assert checked.stderr == ""


def test_every_check_is_documented() -> None:
    documented = set(
        re.findall(r"^\| (ops\.[EW]\d{3}) \|", (ROOT / "docs/checks.md").read_text(), re.MULTILINE)
    )
    sources = "".join(file.read_text() for file in (ROOT / "ops/checks").glob("*.py"))
    numbers = re.findall(r'(error|warning)\(\s*"(\d{3})"', sources)
    assert documented == {f"ops.{kind[0].upper()}{number}" for kind, number in numbers}
    assert len(documented) >= len(
        [c for c in registry.registry.get_checks(include_deployment_checks=True) if "performance" in c.tags]
    )


LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


@pytest.mark.parametrize(
    ("number", "change", "says"),
    [
        ("W001", {"ASGI_APPLICATION": None}, "None"),
        ("W001", {"ASGI_APPLICATION": "nowhere.asgi.application"}, "'nowhere.asgi.application'"),
        ("W001", {"WSGI_APPLICATION": "config.wsgi.application"}, "'config.wsgi.application'"),
        ("W004", {"WEB_CONCURRENCY": 512}, "WEB_CONCURRENCY is 512"),
        ("W020", {"MIDDLEWARE": [SYNC]}, SYNC),
        (
            "W021",
            {"MIDDLEWARE": [MIXIN]},
            "process_request and process_response cost every request a thread hop each",
        ),
        ("W032", {"DEBUG": True}, "DEBUG is True"),
        ("W043", {"REQUEST_SESSION": {}}, "is None"),
        ("W043", {"REQUEST_SESSION": {"statement_timeout": 0}}, "is 0"),
        ("W050", {"CACHES": LOCMEM}, "locmem"),
    ],
)
def test_setting(settings: Settings, find: Find, number: str, change: dict[str, Any], says: str) -> None:
    assert find(number) == []
    for name, value in change.items():
        setattr(settings, name, value)
    (message,) = find(number)
    assert says in message.msg


@pytest.mark.parametrize(
    ("application", "named"), [(f"{__name__}.wrapped", f"{__name__}.Wrapped"), (SYNC, SYNC)]
)
def test_layers(settings: Settings, find: Find, application: str, named: str) -> None:
    """The service's own are quiet, above; to import them here would limit the sessions of other tests."""
    settings.ASGI_APPLICATION = application
    (message,) = find("W070")
    assert named in message.msg


def test_a_sync_only_middleware_is_not_a_mixin(settings: Settings, find: Find) -> None:
    settings.MIDDLEWARE = [SYNC]
    assert find("W021") == []
    settings.MIDDLEWARE = [MIXIN]
    assert find("W020") == []


@pytest.mark.parametrize(
    ("number", "change"),
    [
        ("W041", {"OPTIONS": {"pool": None}}),
        ("E040", {"CONN_MAX_AGE": 60}),
        ("E042", {"ATOMIC_REQUESTS": True}),
    ],
)
def test_database(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, find: Find, number: str, change: dict[str, Any]
) -> None:
    assert find(number) == []
    for name, value in change.items():
        monkeypatch.setitem(settings.DATABASES["default"], name, value)
    (message,) = find(number)
    assert next(iter(change)) in message.msg


@pytest.mark.parametrize(("pool", "found"), [({"max_size": 3}, 0), (None, 1)])
def test_pool_that_manage_py_has_moved(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, find: Find, pool: object, found: int
) -> None:
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", {})
    monkeypatch.setitem(settings.DATABASES["default"], "POOL", pool)
    assert len(find("W041")) == found


def test_pooler(settings: Settings, find: Find) -> None:
    settings.DATABASE_POOLER = True  # after the others were made for a Postgres without one
    said = " ".join(message.msg for message in find("E044"))
    for name in ("NATIVE_POOL.prepare", "prepare_threshold", "'options'", "DISABLE_SERVER_SIDE_CURSORS"):
        assert name in said
    settings.DATABASE_POOLER = "prepared"
    assert not any("prepare" in message.msg.partition(",")[0] for message in find("E044"))
    settings.DATABASE_POOLER = True
    settings.NATIVE_POOL = replace(settings.NATIVE_POOL, prepare=False)
    assert not any("NATIVE_POOL" in message.msg for message in find("E044"))


@pytest.mark.parametrize(
    ("number", "name"), [("W030", "rest_framework"), ("W031", "silk"), ("W031", "debug_toolbar")]
)
def test_installed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, find: Find, number: str, name: str
) -> None:
    package = ModuleType(name)
    package.__path__ = [str(ROOT)]
    settings.DEBUG = False
    assert find(number) == []
    monkeypatch.setitem(apps.app_configs, name, AppConfig(name, package))
    (message,) = find(number)
    assert repr(name) in message.msg
    settings.DEBUG = True
    assert len(find(number)) == (number == "W030")


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Start in a directory whose gunicorn.conf.py has this line."""

    def configure(line: str) -> None:
        (tmp_path / "gunicorn.conf.py").write_text(line)
        monkeypatch.chdir(tmp_path)

    monkeypatch.chdir(ROOT)
    return configure


@pytest.mark.parametrize(
    ("number", "line", "says"),
    [
        ("W002", 'worker_class = "gthread"', "gunicorn.workers.gthread.ThreadWorker"),
        ("W002", "", "gunicorn.workers.sync.SyncWorker"),
        ("W003", "max_requests = 1000", "1000"),
    ],
)
def test_gunicorn(configure: Callable[[str], None], find: Find, number: str, line: str, says: str) -> None:
    assert find(number) == []
    configure(line)
    (message,) = find(number)
    assert says in message.msg


@pytest.mark.parametrize("worker", ["asgi", "uvicorn_worker.UvicornWorker", "ops.gunicorn.worker.Worker"])
def test_asgi_workers(configure: Callable[[str], None], find: Find, worker: str) -> None:
    configure(f"worker_class = {worker!r}")
    assert find("W002") == []


def test_hiredis(monkeypatch: pytest.MonkeyPatch, find: Find) -> None:
    assert find("W051") == []
    monkeypatch.setattr(cache, "HIREDIS_AVAILABLE", False)  # as redis-py finds at import
    assert len(find("W051")) == 1
