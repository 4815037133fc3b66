"""What the tests of products share: the service as it is deployed, rows that come and go, databases of their own."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.core.management import call_command

from tests import extra, spare
from tests.service import Service, serve

ROWS = 10_000


def shared() -> spare.Database:
    """The database of all tests."""
    return spare.Database(str(settings.DATABASES["default"]["NAME"]))


@pytest.fixture(scope="session")
def products(django_db_setup: None, django_db_blocker: Any) -> None:
    """Rows, in the database of all tests."""
    with django_db_blocker.unblock():
        call_command("seed_products", rows=ROWS, verbosity=0)


@pytest.fixture(scope="package")
def service(products: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with its own settings and routes."""
    with serve(
        {"DJANGO_SETTINGS_MODULE": "config.settings", "DATABASE_URL": shared().url},
        tmp_path_factory.mktemp("service"),
    ) as running:
        yield running


@pytest.fixture
def database(products: None) -> Iterator["psycopg.Connection[Any]"]:
    """The service's database, outside any transaction of the test; extra rows are gone afterwards."""
    with extra.connected(shared(), "products") as connection:
        yield connection


@pytest.fixture
def insert(database: "psycopg.Connection[Any]") -> Callable[..., int]:
    """Insert one extra product; returns its id."""
    return extra.inserter(database, "products")


@pytest.fixture(scope="package")
def migrated(django_db_setup: None) -> Iterator[spare.Database]:
    """An empty database with its tables: a template."""
    with spare.create(f"{settings.DATABASES['default']['NAME']}_template") as database:
        migrated = database.manage("migrate", "--verbosity=0")
        assert (migrated.returncode, migrated.stderr) == (0, "")
        yield database


@pytest.fixture
def own(migrated: spare.Database) -> Iterator[spare.Database]:
    """A database for one test, with tables and without rows."""
    with spare.create(migrated.name.replace("template", "own"), migrated.name) as database:
        yield database
