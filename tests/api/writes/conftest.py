"""What the tests of writes share: vouchers that are gone afterwards."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from django.conf import settings

from tests.spare import Database

_numbers = count(1)


@pytest.fixture(autouse=True)
def _no_voucher_stays(django_db_setup: None) -> Iterator[None]:
    yield
    with Database(str(settings.DATABASES["default"]["NAME"])).connect() as connection:
        connection.execute("DELETE FROM shop_voucher WHERE id > 1")
        connection.execute("DELETE FROM shop_category WHERE slug LIKE 'shelf-%'")


@pytest.fixture
def create(api: httpx.Client) -> Callable[..., httpx.Response]:
    """Post a voucher; its code and its percent are its own."""

    def post(**values: Any) -> httpx.Response:
        number = next(_numbers)
        voucher = {"code": f"v{number}", "percent": number % 30_000, "category": "garden"} | values
        response = api.post("/api/vouchers", json=voucher)
        assert response.status_code == 201, response.text
        return response

    return post
