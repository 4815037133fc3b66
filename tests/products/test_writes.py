"""Writes of products; what any resource's writes do is tested in tests/api/writes, on the tests' own shop."""

import datetime
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import psycopg
import pytest

from api.keys.minting import digest_of, mint
from ops.tools.embedded.paths import ROOT
from tests.products.conftest import shared
from tests.service import Service

NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def key(service: Service) -> Iterator[str]:
    """An API key that may write products."""
    key, prefix = mint()
    with shared().connect() as connection:
        connection.execute(
            "INSERT INTO api_keys_apikey (name, prefix, digest, scopes, time_created)"
            " VALUES ('writer', %s, %s, 'products:write', now())",
            [prefix, digest_of(key)],
        )
        yield key
        connection.execute("DELETE FROM api_keys_apikey WHERE prefix = %s", [prefix])


@pytest.fixture
def api(service: Service, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.client.base_url, headers={"X-API-Key": key}) as client:
        yield client


def test_a_write_needs_a_key_with_its_scope(service: Service) -> None:
    for answer in (
        service.client.post("/api/products", json=GOOD),
        service.client.patch("/api/products/1", json={}),
        service.client.put("/api/products/1", json=GOOD),
        service.client.delete("/api/products/1"),
        service.client.post("/api/products/import", content=b"{}\n", headers=NDJSON),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


GOOD: dict[str, Any] = {
    "low_price": "1.50",
    "high_price": 2,
    "demand_qty": 1,
    "offers_qty": 2,
    "bought_qty": 3,
    "sold_qty": 4,
}


def test_a_product_through_its_life(api: httpx.Client) -> None:
    created = api.post("/api/products", json=GOOD | {"category": "garden"})
    assert created.status_code == 201, created.text
    product, url = created.json(), created.headers["location"]
    assert url == f"/api/products/{product['id']}"
    assert list(product) == [*("id", *GOOD), "time_created", "category"]
    assert (product["high_price"], product["category"]) == ("2.00", "garden")
    made = datetime.datetime.fromisoformat(product["time_created"])
    assert abs(datetime.datetime.now(datetime.UTC) - made) < datetime.timedelta(minutes=5)
    try:
        got = api.get(url)
        assert (got.content, got.headers["etag"]) == (created.content, created.headers["etag"])
        change = {"category": None, "time_created": "2030-01-01T01:00:00+01:00"}
        changed = api.patch(url, json=change, headers={"If-Match": got.headers["etag"]})
        assert changed.json() == product | change | {"time_created": "2030-01-01T00:00:00.000000+00:00"}
        assert api.patch(url, json=change, headers={"If-Match": got.headers["etag"]}).status_code == 412
        replaced = api.put(url, json=changed.json() | {"sold_qty": 9})
        assert replaced.json() == changed.json() | {"sold_qty": 9}
        assert api.put(url, json=GOOD).json()["errors"][0]["code"] == "missing"
    finally:
        assert api.delete(url).status_code == 204
    assert {api.get(url).status_code, api.put(url, json=replaced.json()).status_code} == {404}


def test_an_import(api: httpx.Client, database: "psycopg.Connection[Any]") -> None:
    [[last]] = database.execute("SELECT max(id) FROM products_product").fetchall()
    lines = [GOOD | {"category": "garden"}, GOOD | {"low_price": "1.999"}, GOOD | {"low_price": "2.01"}]
    lines += [GOOD | {"time_created": "9999-12-31T23:00:00-01:00"}]
    lines += [GOOD | {"low_price": "1_0.50"}, GOOD | {"low_price": " 1.00 ", "high_price": "x"}]
    content = "\n".join(map(json.dumps, lines))
    refused = api.post("/api/products/import", content=content, headers=NDJSON)
    assert refused.status_code == 422, refused.text
    assert [(fault["parameter"], fault["code"]) for fault in refused.json()["errors"]] == [
        *(("lines[2].low_price", "out_of_range"),),
        *(("lines[3].low_price", "low_above_high"), ("lines[3].high_price", "low_above_high")),
        *(("lines[4].time_created", "out_of_range"), ("lines[5].low_price", "malformed")),
        *(("lines[6].high_price", "malformed"), ("lines[6].low_price", "malformed")),
    ]
    try:
        table = f"{','.join(GOOD)},category\n1.5,2,1,2,3,4,garden\n1.5,2,1,2,3,4,\n"
        done = api.post("/api/products/import", content=table, headers={"content-type": "text/csv"})
        assert (done.status_code, done.json()["inserted"]) == (200, 2), done.text
        query = "SELECT low_price, category_id IS NULL FROM products_product WHERE id > %s ORDER BY id"
        assert database.execute(query, [last]).fetchall() == [
            (Decimal("1.50"), False),
            (Decimal("1.50"), True),
        ]
    finally:
        database.execute("DELETE FROM products_product WHERE id > %s", [last])


def test_an_export_is_imported_as_the_document_says(
    api: httpx.Client, database: "psycopg.Connection[Any]"
) -> None:
    command = re.search(
        r"(/api/products/export\?format=csv&fields=[\w,]+)'", (ROOT / "docs/exporting.md").read_text()
    )
    assert command
    [[last]] = database.execute("SELECT max(id) FROM products_product").fetchall()
    exported = api.get(f"{command[1]}&limit=2&sort=id").content
    try:
        done = api.post("/api/products/import", content=exported, headers={"content-type": "text/csv"})
        assert (done.status_code, done.json()["inserted"]) == (200, 2), done.text
        again = api.get(f"{command[1]}&sort=id&after={last}").content
        assert (again, again.count(b"\r\n")) == (exported, 3)
    finally:
        database.execute("DELETE FROM products_product WHERE id > %s", [last])


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"low_price": "2.01"}, [("low_price", "low_above_high"), ("high_price", "low_above_high")]),
        ({"high_price": "100000"}, [("high_price", "out_of_range")]),
        ({"low_price": "0.001"}, [("low_price", "out_of_range")]),
        ({"low_price": "NaN"}, [("low_price", "out_of_range")]),
        ({"demand_qty": -1}, [("demand_qty", "out_of_range")]),
        ({"sold_qty": 2**31}, [("sold_qty", "out_of_range")]),
        ({"time_created": "2020-01-01"}, [("time_created", "malformed")]),
        ({"category": "no-such"}, [("category", "no_such_row")]),
        ({"id": 1}, [("id", "unknown")]),
    ],
    ids=str,
)
def test_bad_products(
    api: httpx.Client,
    database: "psycopg.Connection[Any]",
    insert: Callable[..., int],
    change: dict[str, Any],
    faults: list[tuple[str, str]],
) -> None:
    url = f"/api/products/{insert(low_price='1', high_price='2')}"
    before = api.get(url).content
    counted = "SELECT count(*) FROM products_product"
    rows = database.execute(counted).fetchall()
    answers = [api.post("/api/products", json=GOOD | change)]
    if "id" not in change:
        answers.append(api.patch(url, json=change))
    for answer in answers:
        assert answer.status_code == 422, answer.text
        assert [(fault["parameter"], fault["code"]) for fault in answer.json()["errors"]] == faults
    assert api.get(url).content == before
    assert database.execute(counted).fetchall() == rows


def test_prices_in_the_wrong_order_are_told(api: httpx.Client) -> None:
    refused = api.post("/api/products", json=GOOD | {"low_price": 3, "high_price": 2.5})
    details = [fault["detail"] for fault in refused.json()["errors"]]
    assert details == ["low_price may not be greater than high_price"] * 2


def test_a_product_that_is_sent_again(api: httpx.Client, database: "psycopg.Connection[Any]") -> None:
    headers = {"Idempotency-Key": "one-product"}
    first, again = (api.post("/api/products", json=GOOD, headers=headers) for _ in range(2))
    try:
        assert (first.status_code, again.content) == (201, first.content), first.text
        assert again.headers["idempotency-replayed"] == "true"
    finally:
        api.delete(first.headers["location"])
        database.execute("DELETE FROM api_idempotency_key")


def test_many_products_through_their_life(api: httpx.Client, service: Service) -> None:
    bulk = "/api/products/bulk"
    items = [GOOD | {"sold_qty": n, "category": "garden" if n % 2 else None} for n in range(200)]
    assert service.client.post(bulk, json=items).status_code == 401
    created = api.post(bulk, json=items)
    assert created.status_code == 201, created.text
    rows = created.json()
    ids = [row["id"] for row in rows]
    try:
        assert [(row["sold_qty"], row["category"]) for row in rows] == [
            (item["sold_qty"], item["category"]) for item in items
        ]
        assert (
            b"[" + b",\n".join(api.get(f"/api/products/{each}").content for each in ids[:3]) + b",\n"
            == (created.content[: created.content.index(b'{"id":%d' % ids[3])])
        )
        patch = [{"id": each, "low_price": "1.25", "time_created": "2031-01-01T00:00:00Z"} for each in ids]
        changed = api.patch(bulk, json=patch, headers={"Prefer": "return=minimal"})
        assert (changed.status_code, changed.json()) == (200, ids)
        bad = [*patch[:-1], patch[-1] | {"low_price": "2.01"}]
        faults = api.patch(bulk, json=bad).json()["errors"]
        assert [(fault["parameter"], fault["code"]) for fault in faults] == [
            ("items[199].low_price", "low_above_high"),
            ("items[199].high_price", "low_above_high"),
        ]
        assert api.get(f"/api/products/{ids[7]}").json()["low_price"] == "1.25"
    finally:
        assert api.request("DELETE", bulk, json=ids).status_code == 204
    assert api.get(f"/api/products/{ids[0]}").status_code == 404


VALUES: list[tuple[str, Any]] = [
    *(("low_price", value) for value in ("1.5", "1.500", "-0", "-1.25", "01.5", "1.555", "1e0", " 1", "100000", "")),
    *(("low_price", value) for value in (1.5, 1, None)),
    *(("time_created", f"2024-{value}") for value in (
        *("02-29T00:00:00Z", "01-31T23:59:59.123456+14:00", "01-31T00:00:00.1234567Z", "06-30T23:59:60Z"),
        *("01-01T00:00:00-15:00", "01-01T24:00:00Z", "02-30T00:00:00Z", "01-01 00:00:00Z", "01-01T00:00:00"),
    )),
    ("time_created", "0001-01-01T00:00:00Z"),
    *(("sold_qty", value) for value in (7.0, 7.5, "7", True, 2**31)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_many_products_take_the_values_that_one_takes(api: httpx.Client, name: str, value: Any) -> None:
    one = api.post("/api/products", json=GOOD | {name: value})
    many = api.post("/api/products/bulk", json=[GOOD, GOOD | {name: value}])
    assert many.status_code == one.status_code
    if one.status_code == 422:
        faults = [fault | {"parameter": f"items[1].{fault['parameter']}"} for fault in one.json()["errors"]]
        assert many.json()["errors"] == faults
        return
    rows = [one.json(), *many.json()]
    try:
        assert rows[2][name] == rows[0][name]
    finally:
        api.request("DELETE", "/api/products/bulk", json=[row["id"] for row in rows])
