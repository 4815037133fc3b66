"""What the tests stand on: real Postgres and Valkey, a database with a shop, and the service on a socket.

Without DATABASE_URL and REDIS_URL, private servers are started once for all test processes.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator

import django
import httpx
import pytest
from django.conf import settings

from ops.tools.embedded.paths import LOCAL
from ops.tools.embedded.servers import Servers
from tests import chaos
from tests.service import Service, serve
from tests.wiretap import Wiretap, tap

ROWS = 10_000
LAST_OF_A_LOG = 4000  # bytes

# At import, since a bad setting ends a start here in its one line, and inside a hook of pytest's in a traceback.
if settings.configured and os.environ.get("DJANGO_SETTINGS_MODULE") != "tests.settings":
    sys.exit("unset DJANGO_SETTINGS_MODULE: the tests have settings of their own, tests.settings")
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
os.environ.setdefault("SECRET_KEY", "a-key-for-tests-only-of-more-than-fifty-characters-in-all")
# Not those of `make test`: the tests ask for hosts that are none, and read logs as JSON.
os.environ |= {"ALLOWED_HOSTS": "127.0.0.1,localhost,testserver", "LOG_FORMAT": "json"}
os.environ |= {"RATE_LIMIT_WRITE": "off", "RATE_LIMIT_BULK": "off"}  # a test that wants limits names them
os.environ["METRICS_PORT"] = "0"  # of many services at once; a test that wants metrics names a port
signal.signal(signal.SIGTERM, signal.default_int_handler)  # tests end in order then, as after Ctrl-C
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker inherits the environment of who started it
    servers = Servers(LOCAL / f"test-{os.getpid()}", durable=False)
    os.environ |= servers.__enter__().environment
    atexit.register(servers.__exit__, None, None, None)
django.setup()
NAMED = settings.DATABASES["default"]["NAME"]  # by DATABASE_URL


@pytest.fixture(scope="session", autouse=True)
def no_access_log() -> Iterator[None]:
    """Uvicorn writes none in the worker. Here it would take pytest, which hears every logger, for a reader."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(logging.getLogger("uvicorn.access"), "hasHandlers", lambda: False)
        yield


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(chaos)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "django_db_setup" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.django_db)
        if settings.RUNTIME != "lean" and item.get_closest_marker("lean"):
            item.add_marker(pytest.mark.skip(reason="RUNTIME is not lean"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its services have logged last."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Service):
                logged = value.log.read_bytes()[-LAST_OF_A_LOG:]
                report.sections.append((f"log of {name}", logged.decode(errors="replace")))
    return report


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: "pytest.FixtureRequest") -> None:
    """The test database, with products whose every sort key has ties."""
    from django.core.management import call_command
    from django.db import connection

    # pytest-django makes a test database only if a collected test has the mark django_db. Without one, what follows
    # would rewrite the database that DATABASE_URL names, whatever it is called.
    if connection.settings_dict["NAME"] == NAMED:
        pytest.exit("no test database: a test that needs it lacks the mark django_db", returncode=4)
    with django_db_blocker.unblock():  # type: ignore[attr-defined]  # pytest-django's
        call_command("seed_shop", rows=ROWS, verbosity=0)


@pytest.fixture(scope="session")
def wiretap(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiretap]:
    """What the service says to Postgres."""
    with tap(settings.DATABASES["default"], tmp_path_factory.mktemp("tap")) as wire:
        yield wire


@pytest.fixture(scope="session")
def service(wiretap: Wiretap, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as it is deployed, with one worker, on a real socket."""
    environment = {"DATABASE_URL": wiretap.url, "TESTED_WITHOUT_HASTE": "yes"}
    with serve(environment, tmp_path_factory.mktemp("service")) as running:
        # The statements that it makes of its own accord: the report of connections, and those that warm its worker.
        running.wait_for(b"connections at worst")
        running.client.get("/livez")
        yield running


@pytest.fixture
def api(service: Service) -> httpx.Client:
    """An HTTP client of the service."""
    return service.client
