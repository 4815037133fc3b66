"""No page reads more than it answers: the plans that Postgres makes for the statements the service really sends."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations
from typing import Any

import psycopg
import pytest
from django.conf import settings
from psycopg import sql

from tests.service import Service
from tests.spare import Database
from tests.wiretap import Wiretap

pytestmark = pytest.mark.lean  # they read the statements that the native pool prepares

LIST = "/api/products"
LIMIT = 3
# Beside the rows: the index's root and two leaves, the category's index and row, and what chance adds.
BLOCKS = 12
PATHS = {
    "time_created": {
        "created_after": "2020-01-01T00:00:00Z",
        "created_before": "2029-01-01T00:00:00Z",
        "category": "garden",
    },
    "low_price": {"low_price_min": "0", "low_price_max": "999.99"},
    "high_price": {"high_price_min": "0", "high_price_max": "999.99"},
    "id": {},
}
INDEXES = {
    "id": "shop_product_pkey",
    "low_price": "shop_low_price",
    "high_price": "shop_high_price",
}
PAGES = ["first", "second", "deep", "backward", "deep backward"]
Links = Callable[[str], dict[str, str]]


def queries() -> Iterator[tuple[str, str]]:
    """Every sort with every set of its filters, and the index that serves them."""
    for sort, filters in PATHS.items():
        for count in range(len(filters) + 1):
            for chosen in combinations(filters, count):
                query = "&".join(f"{name}={filters[name]}" for name in chosen)
                timed = "shop_category_time" if "category" in chosen else "shop_time"
                for sign in ("", "-"):
                    yield f"sort={sign}{sort}&{query}", INDEXES.get(sort, timed)


QUERIES = list(queries())


@pytest.fixture(scope="module")
def links(service: Service) -> Links:
    """The URLs of a list's pages, each `limit=LIMIT`, by how the page lies; in a table as autovacuum keeps it."""
    with Database(str(settings.DATABASES["default"]["NAME"])).connect() as connection:
        connection.execute("VACUUM ANALYZE shop_product")

    def get(url: str) -> Any:
        return service.client.get(url).json()

    @cache
    def found(query: str) -> dict[str, str]:
        step = 90 if "category" in query else 1000
        first = f"{LIST}?fields=id&limit={step}&{query}"
        pages = [get(first)]
        while pages[-1]["next"]:
            pages.append(get(pages[-1]["next"]))
        urls = [first, pages[0]["next"], pages[-2]["next"], pages[-1]["previous"], pages[1]["previous"]]
        return {
            name: url.replace(f"limit={step}", f"limit={LIMIT}")
            for name, url in zip(PAGES, urls, strict=True)
        }

    return found


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
def explain(
    request: pytest.FixtureRequest,
    service: Service,
    wiretap: Wiretap,
    database: "psycopg.Connection[Any]",
) -> Callable[[str], Any]:
    """The plan, executed, of the one statement that a request runs: with and without knowing its parameters."""

    def explain(url: str) -> Any:
        wiretap.clear()
        assert service.client.get(url).status_code == 200
        ((statement, parameters),) = wiretap.bound
        database.execute(f"SET plan_cache_mode = {request.param}")
        database.execute("SET random_page_cost = 1.1")  # as settings.REQUEST_SESSION
        database.execute("DEALLOCATE ALL")
        database.execute(f"PREPARE page AS {statement}")
        values = sql.SQL(", ").join(map(sql.Literal, parameters))
        run = sql.SQL("({})").format(values) if parameters else sql.SQL("")
        row = database.execute(
            sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page{}").format(run), prepare=False
        ).fetchone()
        assert row
        return row[0][0]["Plan"]

    return explain


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def products(plan: dict[str, Any]) -> dict[str, Any]:
    """The only node that reads the table."""
    (node,) = [node for node in nodes(plan) if node.get("Relation Name") == "shop_product"]
    return node


@pytest.mark.parametrize(("query", "index"), QUERIES)
@pytest.mark.parametrize("fields", ["id,category", "id,demand_qty,time_created"])
def test_an_index_gives_the_rows_in_order(
    links: Links, explain: Callable[[str], Any], query: str, index: str, fields: str
) -> None:
    for url in links(query).values():
        plan = explain(url.replace("fields=id", f"fields={fields}"))
        node = products(plan)
        assert node["Node Type"] in {"Index Scan", "Index Only Scan"}
        assert node["Index Name"] == index
        assert node["Actual Rows"] * node["Actual Loops"] <= LIMIT + 1
        assert not node.get("Rows Removed by Filter")
        assert not node.get("Rows Removed by Index Recheck")
        assert not [n for n in nodes(plan) if "Sort" in n["Node Type"]]


def blocks(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("query", [query for query, _ in QUERIES])
def test_no_page_reads_more_blocks(links: Links, explain: Callable[[str], Any], query: str) -> None:
    """What a scan skips inside the index shows in no row count of EXPLAIN.

    With a bound and a cursor that limit the index from the same side, Postgres may start at the bound.
    """
    read = {page: blocks(explain(url)) for page, url in links(query).items()}
    assert max(read.values()) <= LIMIT + 1 + BLOCKS, read


def test_a_detail_reads_one_row(explain: Callable[[str], Any]) -> None:
    node = products(explain(f"{LIST}/777"))
    assert (node["Node Type"], node["Index Name"]) == ("Index Scan", "shop_product_pkey")
    assert node["Actual Rows"] == 1
