"""The ORM in an endpoint, without a listing: sync, async and as a stream, on the service as it is deployed."""

import httpx
import orjson
import pytest


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("order", [1, 4])
def test_rows(api: httpx.Client, kind: str, order: int) -> None:
    """What a compiled query answers, where it is the same."""
    answer = api.get(f"/api/plain/{kind}?order={order}")
    assert answer.status_code == 200, answer.text
    assert answer.json() == api.get(f"/api/orders/{order}?fields=lines").json()["lines"]
    assert "db;dur=0.000" not in answer.headers["server-timing"]


def test_a_stream(api: httpx.Client) -> None:
    """It begins before it is complete: it has no length."""
    page = api.get("/api/products?limit=1000&sort=id&fields=id,low_price").json()
    with api.stream("GET", "/api/plain/stream") as answer:
        assert answer.status_code == 200
        assert "content-length" not in answer.headers
        rows = [orjson.loads(line) for line in answer.iter_lines()]
    assert rows[:1000] == page["results"]
    assert len(rows) >= 10_000
