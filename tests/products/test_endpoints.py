"""What products and categories answer; what any list does is tested in tests/api, on the tests' own shop."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.fuzzing import operations_of

LISTED = [
    *("id", "low_price", "high_price", "demand_qty", "offers_qty", "bought_qty", "sold_qty"),
    "time_created",
]


def get(api: httpx.Client, url: str) -> Any:
    response = api.get(url)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_page(api: httpx.Client) -> None:
    results = get(api, "/api/products")["results"]
    assert [list(row) for row in results] == [LISTED] * 100
    assert results[0]["time_created"] == "2020-01-01T00:00:13.370000+00:00"


@pytest.mark.parametrize("sort", ["time_created", "low_price", "high_price", "id"])
def test_sorts(api: httpx.Client, sort: str) -> None:
    keys = [
        (float(row[sort]) if "price" in sort else row[sort], row["id"])
        for row in get(api, f"/api/products?sort=-{sort}&limit=1000")["results"]
    ]
    assert keys == sorted(keys, reverse=True)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("low_price_min=0&low_price_max=1", [0, 1]),
        ("low_price_min=1.01&low_price_max=2", [2]),
        ("low_price_min=5.01&low_price_max=9", []),
        ("high_price_min=10000&high_price_max=20000", [0, 1, 2]),
        ("created_after=2030-01-01T00:00:00Z&created_before=2031-01-01T00:00:00Z", [0, 1]),
        ("created_after=2031-01-01T00:00:00Z", [2]),
        ("created_after=2030-01-01T00:00:00Z&category=garden", [1]),
    ],
)
def test_filters(api: httpx.Client, insert: Callable[..., int], query: str, found: list[int]) -> None:
    rows = [
        insert(0, low_price="1", high_price="10000"),
        insert(1, low_price="1", high_price="15000", category="garden"),
        insert(2, low_price="2", high_price="20000", time_created="2031-01-01Z"),
    ]
    ids = {row["id"] for row in get(api, f"/api/products?limit=1000&{query}")["results"]}
    assert ids & {*rows} == {rows[number] for number in found}


def test_a_product(api: httpx.Client) -> None:
    listed = get(api, "/api/products?limit=1")["results"][0]
    product = get(api, f"/api/products/{listed['id']}")
    assert list(product) == [*LISTED, "category"]
    assert product == listed | {"category": product["category"]}
    assert get(api, "/api/products/1?fields=id,category") == {"id": 1, "category": product["category"]}
    assert api.get("/api/products/99999999").status_code == 404


def test_categories(api: httpx.Client) -> None:
    slugs = [row["slug"] for row in get(api, "/api/categories")["results"]]
    assert len(slugs) == 20
    assert slugs == sorted(slugs)


def test_statistics(api: httpx.Client) -> None:
    found = get(api, "/api/products/stats?by=category")
    total, groups = found["total"], found["groups"]
    for name in ("count", "demand_qty_sum", "offers_qty_sum", "bought_qty_sum", "sold_qty_sum"):
        assert total[name] == sum(group[name] for group in groups)
    for name in ("low_price_min", "high_price_min"):
        assert float(total[name]) == min(float(group[name]) for group in groups)
    cheapest = get(api, "/api/products?sort=low_price&limit=1")["results"][0]
    assert cheapest["low_price"] == total["low_price_min"]


def test_a_category_with_its_newest_products(api: httpx.Client) -> None:
    listed = get(api, "/api/categories?limit=1")["results"][0]
    query = f"category={listed['slug']}&sort=-time_created&limit=20&fields=id,low_price,high_price,sold_qty"
    newest = get(api, f"/api/products?{query}")["results"]
    assert len(newest) == 20
    assert get(api, f"/api/categories/{listed['id']}") == listed | {"newest": newest}


def test_the_document_groups_operations_by_their_path(api: httpx.Client) -> None:
    document = operations_of("products", get(api, "/api/openapi.json"))
    for path, operations in document["paths"].items():
        assert {tag for each in operations.values() for tag in each["tags"]} == {path.split("/")[2]}, path
