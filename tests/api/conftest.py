"""What the tests of lists share: rows that come and go, and refusals.

Property tests draw the same examples every time, and no machine is too slow for them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.conf import settings
from hypothesis import settings as hypothesis

from tests import extra, spare
from tests.service import Service
from tests.wiretap import Wiretap

hypothesis.register_profile("reproducible", derandomize=True, deadline=None)
hypothesis.load_profile("reproducible")


@pytest.fixture
def database(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    """The service's database, outside any transaction of the test; extra rows are gone afterwards."""
    shared = spare.Database(str(settings.DATABASES["default"]["NAME"]))
    with extra.connected(shared, "shop") as connection:
        yield connection


@pytest.fixture
def insert(database: "psycopg.Connection[Any]") -> Callable[..., int]:
    """Insert one extra product; returns its id."""
    return extra.inserter(database, "shop")


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
        assert response.headers["cache-control"] == "no-store"
        if method == "HEAD":
            return {}
        problem = response.json()
        assert problem["status"] == status
        assert {"type", "title", "code", "detail"} <= problem.keys()
        assert "Traceback" not in response.text
        return problem

    return send
