"""What the tests of products share: rows that come and go, refusals, and a database of their own."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from django.conf import settings

from tests.products import spare
from tests.service import Service
from tests.wiretap import Wiretap

FIRST_EXTRA = 1_000_000  # ids from here on are a test's own; the seeded rows stay as they are

INSERT = """
    INSERT INTO products_product (id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty,
                                  time_created, category_id)
    VALUES (%(id)s, %(low_price)s, %(high_price)s, %(demand_qty)s, 0, 0, 0, %(time_created)s,
            (SELECT id FROM products_category WHERE slug = %(category)s))
"""
PLAIN = {"low_price": 1, "high_price": 2, "demand_qty": 0, "time_created": "2030-01-01Z", "category": None}


@pytest.fixture
def database(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    """The service's database, outside any transaction of the test; extra rows are gone afterwards."""
    with closing(spare.Database(str(settings.DATABASES["default"]["NAME"])).connect()) as connection:
        yield connection
        connection.execute("DELETE FROM products_product WHERE id >= %s", [FIRST_EXTRA])


@pytest.fixture
def insert(database: "psycopg.Connection[Any]") -> Callable[..., int]:
    """Insert one extra product; returns its id."""

    def insert(number: int = 0, **values: Any) -> int:
        product = FIRST_EXTRA + number
        database.execute(INSERT, PLAIN | values | {"id": product})
        return product

    return insert


@pytest.fixture
def refused(service: Service, wiretap: Wiretap) -> Callable[..., Any]:
    """Send a request that must be refused with this status before it costs a statement; returns the problem."""

    def send(status: int, url: str, method: str = "GET", **options: Any) -> Any:
        logged = service.log.stat().st_size
        wiretap.clear()
        response = service.client.request(method, url, **options)
        assert response.status_code == status, (url[:200], response.text[:500])
        assert wiretap.executions == 0
        assert b"Traceback" not in service.log.read_bytes()[logged:]
        assert response.headers["content-type"] == "application/problem+json"
        if method == "HEAD":
            return {}
        problem = response.json()
        assert problem["status"] == status
        assert {"type", "title", "code", "detail"} <= problem.keys()
        assert "Traceback" not in response.text
        return problem

    return send


@pytest.fixture(scope="session")
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
