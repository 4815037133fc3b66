"""The OpenAPI document is true of products, says a fuzzer with a key that may write, and all of it has been met."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.keys.minting import digest_of, mint
from products.schemas import ProductOut
from tests.fuzzing import Coverage, explore, operations_of
from tests.service import Service, serve
from tests.spare import Database
from tests.upstream import answers, source

WRITES = ("POST", "PUT", "PATCH", "DELETE")


def insert_key(database: Database, scopes: str) -> dict[str, str]:
    """The header field of a new API key."""
    key, prefix = mint()
    with database.connect() as connection:
        connection.execute(
            "INSERT INTO api_keys_apikey (name, prefix, digest, scopes, time_created) VALUES (%s, %s, %s, %s, now())",
            [prefix, prefix, digest_of(key), scopes],
        )
    return {"X-API-Key": key}


@contextmanager
def served(directory: Path, url: str, **environment: str) -> Iterator[Service]:
    own = {"DJANGO_SETTINGS_MODULE": "config.settings", "DATABASE_URL": url, **environment}
    directory.mkdir()
    with serve({"RATE_LIMIT_WRITE": "off", "RATE_LIMIT_BULK": "off", **own}, directory) as running:
        yield running


def test_every_answer_is_as_the_document_says(own: Database, tmp_path: Path) -> None:
    seeded = own.manage("seed_products", "--rows", "1000", "--verbosity=0")
    assert (seeded.returncode, seeded.stderr) == (0, "")
    writer, reader = insert_key(own, "products:write"), insert_key(own, "other:read")
    cache = {"PAGE_CACHE": "on", "CACHE_PREFIX": own.name}
    rates = {"base": "USD", "date": "2026-11-27", "rates": {"EUR": 0.9245}}
    with (
        source(answers(json.dumps(rates).encode())) as well,
        served(tmp_path / "service", own.url, **cache, RATES_URL=well.url) as running,
    ):
        document = operations_of("products", running.client.get("/api/openapi.json").json())
        coverage = Coverage(document)
        url, key = f"{running.client.base_url}/api/openapi.json", writer["X-API-Key"]
        found = explore(url, resource="products", examples=3, key=key, coverage=coverage)
        assert not found.wrong, "\n\n".join(found.wrong)
        _see_what_a_fuzzer_does_not(running.client, document, coverage, writer, reader)
        product = {name: 1 for name in ProductOut.model_fields if name.endswith(("_price", "_qty"))}
        fields = {"headers": writer | {"Idempotency-Key": "met"}}
        for path, content in (("/api/products", product), ("/api/products/bulk", [product])):
            with own.connect() as holder, holder.transaction(), ThreadPoolExecutor() as threads:
                holder.execute(
                    "LOCK TABLE products_product IN EXCLUSIVE MODE"
                )  # for two with one key to meet
                for _ in range(2):
                    threads.submit(_see, running.client, coverage, "POST", path, json=content, **fields)
    limits = {"RATE_LIMIT_WRITE": "1/h", "RATE_LIMIT_BULK": "1/h", "IMPORT_LIMIT": "1"}
    with served(tmp_path / "limited", own.url, **limits) as running:
        lines = {"headers": writer | {"Content-Type": "application/x-ndjson"}, "content": b"{}"}
        _see(running.client, coverage, "POST", "/api/products/import", **lines)
        for _ in range(2):
            _see_all(running.client, document, coverage, {"headers": writer})
    with served(tmp_path / "lost", "postgresql://nobody@127.0.0.1:1/none") as running:
        _see_all(running.client, document, coverage, {"headers": writer})
    assert coverage.missing <= {("POST /api/products/import", "408")}  # after half a minute of silence


def _see_all(client: httpx.Client, document: Any, coverage: Coverage, request: dict[str, Any]) -> None:
    """Send `request` to each operation."""
    for path, operations in document["paths"].items():
        for method in operations:
            target = path.replace("/quote", "/quote?currency=EUR")
            _see(client, coverage, method.upper(), re.sub(r"{\w+}", "1", target), **request)


def _see(client: httpx.Client, coverage: Coverage, method: str, path: str, **request: Any) -> httpx.Response:
    answer = client.request(method, path, **request)
    coverage.see(method, path, answer.request.headers, answer.status_code)
    return answer


def _see_what_a_fuzzer_does_not(
    client: httpx.Client,
    document: Any,
    coverage: Coverage,
    writer: dict[str, str],
    reader: dict[str, str],
) -> None:
    _see_all(client, document, coverage, {})  # 401
    _see_all(client, document, coverage, {"headers": reader})  # 403
    product = client.get("/api/products?limit=1").json()["results"][0]["id"]
    for path in (
        *("/api/products", "/api/products/stats", f"/api/products/{product}"),
        *("/api/categories", "/api/categories/1"),
    ):
        tag = client.get(path).headers.get("etag", "*")
        _see(client, coverage, "GET", path, headers={"If-None-Match": tag})
    for method in WRITES:
        for path in (
            "/api/products" if method == "POST" else f"/api/products/{product}",
            "/api/products/bulk",
        ):
            for fields in ({"Content-Type": "text/plain"}, {"If-Match": '"stale"'}):
                _see(client, coverage, method, path, headers=writer | fields, content=b"{}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_met(status: int) -> None:
    """The coverage itself: what is not met is missing."""
    document = {
        "paths": {"/a/{id}": {"get": {"parameters": [{"name": "If-Match"}], "responses": {401: {}, 403: {}}}}}
    }
    coverage = Coverage(document)
    coverage.see("GET", "http://x/a/7?b=1", ["if-match"], status)
    assert coverage.missing == {("GET /a/{id}", str({401: 403, 403: 401}[status]))}


def test_the_operations_of_other_resources_are_left_to_their_tests() -> None:
    ids = {"/products": {"get": "products_api_list"}, "/orders": {"get": "orders_api_list"}}
    ids["/orders/{id}/products"] = {"get": "products_api_ordered", "post": "orders_api_add"}
    paths = {path: {m: {"operationId": each} for m, each in methods.items()} for path, methods in ids.items()}
    own = operations_of("products", {"paths": paths})["paths"]
    assert {path: [*operations] for path, operations in own.items()} == {
        "/products": ["get"],
        "/orders/{id}/products": ["get"],
    }
