"""Statistics: exact, of one moment, cached by their age, refused where they cannot be had."""

import asyncio
import datetime
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest
import redis
from asgiref.sync import async_to_sync
from django.conf import settings as configured
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import Avg, Count, Max, Min, Sum
from django.test import RequestFactory
from ninja import Schema
from pytest_django import Settings

from api.problems import Problem
from api.reads import stats
from api.reads.access import AccessPath
from api.reads.listing import LISTINGS, Listing
from api.reads.stats import Stats
from ops.postgres.statement import Param
from tests.api.schemas import violations
from tests.service import PATIENCE, Service, serve
from tests.shop.models import Order, Product
from tests.shop.queries import ORDERS, PRODUCT_STATS, PRODUCTS
from tests.shop.schemas import ProductOut, ProductStatsOut
from tests.wiretap import Wiretap

URL = "/api/products/stats"
AGGREGATES: dict[str, Any] = {
    "count": Count("*"),
    "low_price_min": Min("low_price"),
    "low_price_average": Avg("low_price"),
    "demand_qty_sum": Sum("demand_qty"),
    "time_created_max": Max("time_created"),
}
pytestmark = pytest.mark.django_db


def printed(values: dict[str, Any]) -> Any:
    return orjson.loads(ProductStatsOut(**values).model_dump_json())


# --- What they say --------------------------------------------------------------------------------


def test_of_all_rows(api: httpx.Client) -> None:
    before = datetime.datetime.now(datetime.UTC)
    answer = api.get(URL)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert list(found) == ["as_of", "estimated_count", "total"]
    assert before <= datetime.datetime.fromisoformat(found["as_of"]) <= datetime.datetime.now(datetime.UTC)
    assert found["total"] == printed(Product.objects.aggregate(**AGGREGATES))
    assert found["total"]["count"] == Product.objects.count()


def test_by_a_field(api: httpx.Client) -> None:
    found = api.get(URL, params={"by": "category"}).json()
    rows: Any = Product.objects.values("category__slug").annotate(**AGGREGATES).order_by("category__slug")
    expected = [{**printed(values), "category": values["category__slug"]} for values in rows]
    assert None in [group["category"] for group in expected]
    assert found["groups"] == expected
    assert found["has_more_groups"] is False
    assert found["total"]["count"] == sum(group["count"] for group in expected)


@pytest.mark.parametrize("query", ["", "by=category"])
def test_as_the_document_says(api: httpx.Client, query: str) -> None:
    document = api.get("/api/openapi.json").json()
    answer = document["paths"][URL]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert [*violations(document, answer, api.get(f"{URL}?{query}").json())] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [("by=colour", "not_a_choice"), ("of=category", "unknown"), ("by=category&by=category", "repeated")],
)
def test_parameters_at_fault(api: httpx.Client, query: str, code: str) -> None:
    answer = api.get(f"{URL}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


def ask(asked: Stats, query: str = "") -> Any:
    """On Django's connection, in the test's transaction."""
    request: Any = RequestFactory().get(f"{URL}?{query}")
    return orjson.loads(async_to_sync(asked.respond)(request).content)


def test_of_no_rows() -> None:
    Order.objects.all().delete()  # whose lines keep products
    Product.objects.all().delete()
    found = ask(PRODUCT_STATS, "by=category")
    nothing = dict.fromkeys(["low_price_min", "low_price_average", "demand_qty_sum", "time_created_max"])
    assert found["total"] == {"count": 0, **nothing}
    assert (found["groups"], found["has_more_groups"]) == ([], False)


def test_the_estimate_is_postgress_own() -> None:
    def of_postgres(rows: int) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE pg_class SET reltuples = %s WHERE relname = 'shop_product'", [rows])
        return ask(PRODUCT_STATS)["estimated_count"]

    assert of_postgres(12345) == 12345
    assert of_postgres(0) == 0
    assert of_postgres(-1) is None  # it has never counted them


@pytest.fixture
def some() -> Iterator[Callable[[Any], Listing]]:
    def some(rows: Any) -> Listing:
        return Listing("some products", rows, ProductOut, AccessPath("id"))

    known = [*LISTINGS]
    yield some
    LISTINGS[:] = known


def test_of_some_rows(some: Callable[[Any], Listing]) -> None:
    rows = Product.objects.filter(category__slug="garden")
    found = ask(Stats(some(rows), ProductStatsOut, by=["category"], **AGGREGATES), "by=category")
    assert found["estimated_count"] is None
    assert found["total"]["count"] == rows.count()
    assert [group["category"] for group in found["groups"]] == ["garden"]


class Counted(Schema):
    count: int


def test_refused_at_import(some: Callable[[Any], Listing]) -> None:
    listing = some(Product.objects.filter(category__slug=Param("slug")))
    with pytest.raises(ImproperlyConfigured, match="statistics have no parameters"):
        Stats(listing, ProductStatsOut, **AGGREGATES)
    with pytest.raises(ImproperlyConfigured, match="ProductOut has no field colour"):
        Stats(PRODUCTS, ProductStatsOut, by=["colour"], **AGGREGATES)
    for name in ("paid", "voucher", "tags", "lines"):
        with pytest.raises(
            ImproperlyConfigured, match=f"{name} is an object or a list: groups are by a column"
        ):
            Stats(ORDERS, Counted, by=[name], count=Count("*"))
    Stats(ORDERS, Counted, by=["number"], count=Count("*"))


# --- One at a time --------------------------------------------------------------------------------


async def _busy_behind(others: int) -> None:
    """Ask while `others` wait for one that is computed."""
    async with stats._place(), asyncio.TaskGroup() as group:
        asked = [group.create_task(_ends_busy()) for _ in range(others + 1)]
        await asyncio.wait(asked)


async def _ends_busy() -> None:
    with pytest.raises(Problem) as raised:
        async with stats._place():
            pass
    assert (raised.value.status, raised.value.code) == (503, "too_many_statistics")
    assert raised.value.headers == {"Retry-After": "10"}


@pytest.mark.parametrize("others", [0, stats.MAX_WAITING])
def test_others_wait_for_their_turn(settings: Settings, others: int) -> None:
    settings.STATISTICS_SECONDS = 0.05
    asyncio.run(_busy_behind(others))
    assert stats._waiting == 0
    assert ask(PRODUCT_STATS)["total"]["count"] > 0


# --- In the cache ---------------------------------------------------------------------------------


@pytest.fixture
def prefix() -> Iterator[str]:
    prefix = f"test-{secrets.token_hex(6)}"
    yield prefix
    with redis.Redis.from_url(configured.REDIS_URL) as client:
        for key in client.scan_iter(f"{prefix}:*", count=10_000):
            client.delete(key)


@pytest.fixture
def cached(wiretap: Wiretap, prefix: str, tmp_path: Any) -> Iterator[Service]:
    """With two workers."""
    environment = {"DATABASE_URL": wiretap.url, "PAGE_CACHE": "on", "CACHE_PREFIX": prefix}
    # On a busy machine, Redis gets more than 50 ms: without it, each worker computes for itself.
    environment |= {"DJANGO_SETTINGS_MODULE": "tests.e2e.cache.settings", "REDIS_TIMEOUT_SECONDS": "5"}
    with serve(environment, tmp_path, workers=2) as running:
        running.wait_for(b"connections at worst")
        wiretap.clear()
        try:
            yield running
        finally:
            wiretap.withholds = lambda: False


def computations(wiretap: Wiretap) -> int:
    return sum("AS aggregated" in statement for statement in wiretap.statements)


def test_nobody_waits_for_long_and_one_computes(cached: Service, wiretap: Wiretap) -> None:
    wiretap.withholds = lambda: computations(wiretap) > 0
    with ThreadPoolExecutor(8) as threads:
        for answer in threads.map(lambda _: httpx.get(f"{cached.client.base_url}{URL}"), range(8)):
            assert (answer.status_code, answer.json()["code"]) == (503, "being_computed")
            assert answer.headers["retry-after"] == "2"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["cache-status"].endswith("fwd=uri-miss")
    assert computations(wiretap) == 1
    wiretap.withholds = lambda: False
    give_up = time.monotonic() + PATIENCE
    while (answer := cached.client.get(URL)).status_code == 503:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert answer.json()["total"]["count"] == Product.objects.count()
    assert answer.headers["cache-control"].startswith("public, max-age=60, stale-while-revalidate=86400")
    seen = {httpx.get(f"{cached.client.base_url}{URL}").json()["as_of"] for _ in range(10)}
    assert seen == {answer.json()["as_of"]}
    assert computations(wiretap) == 1


def test_a_write_leaves_them_as_they_are(cached: Service, wiretap: Wiretap) -> None:
    before = cached.client.get(URL)
    category = cached.client.get("/api/categories?limit=1").json()["results"][0]
    changed = cached.client.patch(f"/api/categories/{category['id']}", json={"name": category["name"]})
    assert changed.status_code == 200, changed.text
    after = cached.client.get(URL)
    assert after.json() == before.json()
    assert after.headers["cache-status"].split("; ")[1] == "hit"
    assert computations(wiretap) == 1
