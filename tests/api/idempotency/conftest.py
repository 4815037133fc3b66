"""What the tests of Idempotency-Key share: two services of one worker each, and vouchers that are gone afterwards."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any

import psycopg
import pytest
from django.conf import settings

from tests.e2e.prometheus import free_port
from tests.service import Service, serve
from tests.spare import Database
from tests.wiretap import Wiretap, tap

OWN = {
    "DJANGO_SETTINGS_MODULE": "tests.api.idempotency.settings",
    "LOG_LEVEL": "debug",
    "ACCESS_LOG": "1",
    "PAGE_CACHE": "on",
}
_numbers = count(1)


def voucher(**values: Any) -> dict[str, Any]:
    """The content of a request that creates one of its own."""
    number = next(_numbers)
    return {"code": f"once-{number}", "percent": number % 30_000, "category": "garden"} | values


@pytest.fixture
def key() -> str:
    return secrets.token_urlsafe(12)


@pytest.fixture(scope="package")
def shared(django_db_setup: None) -> Database:
    return Database(str(settings.DATABASES["default"]["NAME"]))


@pytest.fixture
def rows(shared: Database) -> Iterator["psycopg.Connection[Any]"]:
    """The database, outside any transaction; what a test has written is gone afterwards."""
    with shared.connect() as connection:
        yield connection
        connection.execute("DELETE FROM shop_voucher WHERE id > 1")
        connection.execute("DELETE FROM api_idempotency_key")


@pytest.fixture
def vouchers(rows: "psycopg.Connection[Any]") -> Callable[[dict[str, Any]], int]:
    """How many vouchers there are with the code of one."""

    def vouchers(content: dict[str, Any]) -> int:
        found = rows.execute(
            "SELECT count(*) FROM shop_voucher WHERE code = %s", [content["code"]]
        ).fetchone()
        return int(found[0]) if found else 0

    return vouchers


@pytest.fixture(scope="package")
def wire(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiretap]:
    with tap(settings.DATABASES["default"], tmp_path_factory.mktemp("tap")) as wire:
        yield wire


@pytest.fixture(scope="package")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="package")
def workers(
    wire: Wiretap, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Service]]:
    """Two services, so that a test can choose its worker. The first has metrics."""
    prefix = f"test-{secrets.token_hex(6)}"
    own = [{"METRICS_PORT": str(metrics_port)}, {}]
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                serve(
                    {**OWN, "DATABASE_URL": wire.url, "CACHE_PREFIX": prefix, **more},
                    tmp_path_factory.mktemp("worker"),
                )
            )
            for more in own
        ]
        for service in services:
            service.wait_for(b"connections at worst")
            assert service.client.get("/livez").status_code == 200
        yield services
