"""Test clients, commands and shells read as a worker does: any number of times, on any event loop.

They see what a test's transaction has written, and leave no connection behind.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop
from asgiref.sync import async_to_sync
from django.db import connection
from django.test import AsyncClient, Client, TestCase
from ninja.testing import TestAsyncClient

from ops.postgres.health import ask_postgres
from ops.redis.health import ask_redis
from ops.telemetry.health import Health
from tests import spare
from tests.shop.api import router
from tests.shop.models import Category, Product
from tests.shop.queries import PRODUCTS

TIMES = range(3)
FIELDS = ("id", "category")


@pytest.fixture
def written(db: None) -> int:
    """A product that only the test's transaction has."""
    category = Category.objects.create(slug="uncommitted", name="Uncommitted")
    product = Product.objects.order_by("id")[0]
    product.pk = product.id = 3_000_000
    product.category = category
    product.save(force_insert=True)
    return product.pk


async def get_product(product: int) -> bytes | None:
    return await PRODUCTS.compile_item(FIELDS)(key=product)


def body(product: int) -> bytes:
    return b'{"id":%d,"category":"uncommitted"}' % product


def sessions() -> int:
    """The connections to the test's database but the test's own."""
    with spare.Database("postgres").connect() as admin:
        name = connection.settings_dict["NAME"]
        asked = "SELECT FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
        return len(admin.execute(asked, [name]).fetchall()) - (connection.connection is not None)


@pytest.fixture
def nothing_left(django_db_setup: None) -> Iterator[None]:
    before = sessions()
    yield
    sync: Any = connection
    sync.close_pool()  # which may keep what it has opened
    deadline = time.monotonic() + 5
    while sessions() > before:  # Postgres ends a session a little after its client has
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_djangos_client(written: int) -> None:
    client = Client()
    for _ in TIMES:
        answer = client.get(f"/api/products/{written}?fields=id,category")
        assert (answer.status_code, answer.content) == (200, body(written))
        assert client.get("/api/products?limit=2").status_code == 200


def test_djangos_async_client(written: int) -> None:
    @async_to_sync
    async def ask() -> None:
        for _ in TIMES:
            answer = await AsyncClient().get(f"/api/products/{written}?fields=id,category")
            assert (answer.status_code, answer.content) == (200, body(written))

    for _ in TIMES:
        ask()


def test_ninjas_client(written: int) -> None:
    client: Any = TestAsyncClient(router)

    @async_to_sync
    async def ask() -> None:
        for _ in TIMES:
            answer = await client.get(f"/products/{written}?fields=id,category")
            assert (answer.status_code, answer.content) == (200, body(written))
            answer = await client.get("/products", query_params={"limit": "2"})
            assert answer.json()["next"].startswith("/products?limit=2&cursor=")

    for _ in TIMES:
        ask()


def test_sync_code_and_queries_that_are_counted(
    written: int, django_assert_num_queries: Callable[[int], Any]
) -> None:
    with django_assert_num_queries(3):
        for _ in TIMES:
            assert async_to_sync(get_product)(written) == body(written)


class TestInDjangosTestCase(TestCase):
    """Its async tests run on a loop of their own each, its sync ones on none."""

    product: int

    @classmethod
    def setUpTestData(cls) -> None:
        cls.product = Category.objects.create(slug="zoo", name="Zoo").pk

    def check(self, listed: Any) -> None:
        assert {"slug": "zoo", "name": "Zoo"}.items() <= listed.json()["results"][-1].items()

    def test_sync(self) -> None:
        self.check(self.client.get("/api/categories?sort=slug"))

    async def test_async(self) -> None:
        for _ in TIMES:
            self.check(await self.async_client.get("/api/categories?sort=slug"))

    async def test_async_again(self) -> None:
        await self.test_async()


@pytest.mark.anyio
@pytest.mark.django_db
@pytest.mark.parametrize("turn", TIMES)
async def test_an_async_test_of_anyios(anyio_backend: str, nothing_left: None, turn: int) -> None:
    """Its loop is its own, and so is that of pytest-asyncio."""
    answers = await asyncio.gather(*(get_product(number) for number in range(1, 20)))
    assert all(answers)
    assert (await AsyncClient().get("/api/products/1")).status_code == 200


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.django_db
def test_one_loop_after_the_other(run: Callable[..., Any], nothing_left: None) -> None:
    health = Health({}, postgres=ask_postgres, redis=ask_redis)
    for _ in TIMES:
        assert run(get_product(1))
        assert run(health.report())["status"] == "ok"


@pytest.mark.django_db
def test_loops_beside_each_other(run: Callable[..., Any], nothing_left: None) -> None:
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda number: run(get_product(number)), range(1, 20)))


def test_a_walk_passes_rows_that_no_request_could_name(db: None, client: Client) -> None:
    """The ORM takes more than a filter: a slug beyond ASCII, an empty text."""
    for slug in ("b\u00fcro", ""):
        Category.objects.create(slug=slug, name="Other")
    found, url = [], "/api/categories?limit=1"
    while url:
        page = client.get(url)
        assert page.status_code == 200, page.content
        found += [row["slug"] for row in page.json()["results"]]
        url = page.json()["next"]
    assert {*found} == {*Category.objects.values_list("slug", flat=True)}
