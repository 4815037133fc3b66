"""Walking the whole list page by page while other rows come and go: no row is lost, none comes twice."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import httpx
import psycopg
import pytest

from tests.conftest import ROWS

LIST = "/api/products"
FIRST_EXTRA = 1_000_000

# Copies of every 97th row under another id: they lie between the rows in each order, and tie with them.
APPEAR = f"""
    INSERT INTO shop_product
    SELECT id + {FIRST_EXTRA} + %(turn)s * 10000, low_price, high_price, demand_qty, offers_qty, bought_qty,
           sold_qty, time_created, category_id
    FROM shop_product WHERE id <= {ROWS} AND id %% 97 = %(turn)s
"""
VANISH = f"DELETE FROM shop_product WHERE id >= {FIRST_EXTRA} AND id %% 2 = %(turn)s %% 2"


@pytest.fixture
def unrest(database: "psycopg.Connection[Any]") -> Callable[[], None]:
    """Each call lets some rows vanish and others appear, committed by another session."""
    turns = cycle(range(97))

    def turn() -> None:
        values = {"turn": next(turns)}
        database.execute(VANISH, values)
        database.execute(APPEAR + "ON CONFLICT DO NOTHING", values)

    return turn


def walk(
    api: httpx.Client, url: str | None, link: str, before_each: Callable[[], None] = lambda: None
) -> Iterator[dict[str, Any]]:
    while url:
        before_each()
        response = api.get(url)
        assert response.status_code == 200, response.text
        yield (page := response.json())
        url = page[link]


def stayed(pages: list[dict[str, Any]]) -> list[int]:
    """The ids of the rows that were there all the time, in the order of the pages."""
    return [row["id"] for page in pages for row in page["results"] if row["id"] < FIRST_EXTRA]


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("sort=time_created&limit=1000", "time_created, id"),
        ("sort=time_created&limit=97", "time_created, id"),
        ("sort=-time_created&limit=97", "time_created DESC, id DESC"),
        ("sort=low_price&limit=97", "low_price, id"),
        ("sort=-low_price&limit=1000", "low_price DESC, id DESC"),
        ("sort=high_price&limit=1000", "high_price, id"),
        ("sort=-high_price&limit=97", "high_price DESC, id DESC"),
        ("sort=id&limit=97", "id"),
        ("sort=-id&limit=1000", "id DESC"),
    ],
)
def test_every_row_once_in_both_directions(
    api: httpx.Client,
    database: "psycopg.Connection[Any]",
    unrest: Callable[[], None],
    query: str,
    order: str,
) -> None:
    expected = [row[0] for row in database.execute(f"SELECT id FROM shop_product ORDER BY {order}")]
    assert len(expected) == ROWS
    forward = list(walk(api, f"{LIST}?fields=id&{query}", "next", unrest))
    backward = [forward[-1], *walk(api, forward[-1]["previous"], "previous", unrest)]
    assert stayed(forward) == expected
    assert stayed(backward[::-1]) == expected


@pytest.mark.parametrize("category", ["garden", "toys"])
def test_every_row_of_a_category(
    api: httpx.Client, database: "psycopg.Connection[Any]", unrest: Callable[[], None], category: str
) -> None:
    expected = [
        row[0]
        for row in database.execute(
            "SELECT product.id FROM shop_product AS product JOIN shop_category AS category"
            " ON category_id = category.id WHERE slug = %s ORDER BY time_created, product.id",
            [category],
        )
    ]
    forward = list(walk(api, f"{LIST}?fields=id&limit=7&category={category}", "next", unrest))
    assert stayed(forward) == expected


@pytest.mark.parametrize("sort", ["id", "-id"])
def test_a_page_whose_rows_have_gone_links_back(
    api: httpx.Client, database: "psycopg.Connection[Any]", insert: Callable[..., int], sort: str
) -> None:
    """The extra row has a page of its own at the end of the list, or at its beginning, come to from behind."""
    extra = insert()
    away, back = ("previous", "next") if sort == "-id" else ("next", "previous")
    page = api.get(f"{LIST}?fields=id&limit=1&sort=-id").json()
    neighbour = api.get(page["next"]).json()
    if sort == "id":
        (*_, last) = walk(api, f"{LIST}?fields=id&limit=1000&sort=id", "next")
        assert [row["id"] for row in last["results"]] == [extra]
        neighbour = api.get(last["previous"]).json()
    database.execute("DELETE FROM shop_product WHERE id = %s", [extra])
    empty = api.get(neighbour[away]).json()
    assert (empty["results"], empty[away]) == ([], None)
    outermost = api.get(empty[back]).json()
    assert outermost["results"][0 if away == "previous" else -1]["id"] == ROWS
    assert outermost[away] is None
    assert outermost[back]
