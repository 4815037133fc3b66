"""GET /api/products: the shape of its pages, and what each endpoint asks of Postgres."""

import httpx
import pytest

from tests.wiretap import Wiretap


@pytest.mark.parametrize(
    "url", ["/api/products", "/api/products/1", "/api/products/99999999", "/api/categories"]
)
def test_one_query(api: httpx.Client, wiretap: Wiretap, url: str) -> None:
    api.get(url)
    wiretap.clear()
    api.get(url)
    assert wiretap.executions == 1
