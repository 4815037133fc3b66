"""What the tests stand on: real Postgres and Valkey, a database of products, and the service on a socket.

Without DATABASE_URL and REDIS_URL, private servers are started once for all test processes.
"""

import atexit
import logging
import os
import signal
from collections.abc import Iterator

import django
import httpx
import pytest
from django.conf import settings

from ops.embedded.paths import LOCAL
from ops.embedded.servers import Servers
from tests.service import Service, serve
from tests.wiretap import Wiretap, tap

ROWS = 10_000

# At import, since a bad setting ends a start here in its one line, and inside a hook of pytest's in a traceback.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("SECRET_KEY", "a-key-for-tests-only-of-more-than-fifty-characters-in-all")
# Not those of `make test`: the tests ask for hosts that are none, and read logs as JSON.
os.environ |= {"ALLOWED_HOSTS": "127.0.0.1,localhost,testserver", "LOG_FORMAT": "json"}
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "django_db_setup" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.django_db)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: "pytest.FixtureRequest") -> None:
    """The test database, with products whose every sort key has ties."""
    from django.core.management import call_command
    from django.db import connection
    from django.db.models.functions import TruncMinute

    from products.models import Product

    # pytest-django makes a test database only if a collected test has the mark django_db. Without one, what follows
    # would rewrite the database that DATABASE_URL names, whatever it is called.
    if connection.settings_dict["NAME"] == NAMED:
        pytest.exit("no test database: a test that needs it lacks the mark django_db", returncode=4)
    with django_db_blocker.unblock():  # type: ignore[attr-defined]  # pytest-django's
        call_command("seed_products", rows=ROWS, verbosity=0)
        Product.objects.update(time_created=TruncMinute("time_created"))


@pytest.fixture(scope="session")
def wiretap(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiretap]:
    """What the service says to Postgres."""
    with tap(settings.DATABASES["default"], tmp_path_factory.mktemp("tap")) as wire:
        yield wire


@pytest.fixture(scope="session")
def service(wiretap: Wiretap, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as it is deployed, with one worker, on a real socket."""
    with serve({"DATABASE_URL": wiretap.url}, tmp_path_factory.mktemp("service")) as running:
        running.wait_for(b"connections at worst")  # the last statement that it makes of its own accord
        yield running


@pytest.fixture
def api(service: Service) -> httpx.Client:
    """An HTTP client of the service."""
    return service.client
