"""What is asked of the contenders, and what Postgres itself says the answer is."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from ops.lab.contender import Contender
from ops.lab.contenders.cached import CACHED
from ops.lab.contenders.uncached import SUB10, UNCACHED

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

PRODUCT: LiteralString = """
    SELECT p.id, low_price::text, high_price::text, demand_qty, offers_qty, bought_qty, sold_qty, time_created
"""
LISTED: LiteralString = PRODUCT + "FROM products_product AS p ORDER BY time_created, id OFFSET %s LIMIT %s"
FROM: LiteralString = PRODUCT + (
    "FROM products_product AS p WHERE time_created >= %s::timestamptz ORDER BY time_created, id OFFSET 100 LIMIT 100"
)
DETAILED: LiteralString = (
    PRODUCT + ", c.slug AS category FROM products_product AS p"
    " LEFT JOIN products_category AS c ON c.id = p.category_id WHERE p.id = ANY(%s) ORDER BY p.id"
)
DETAILS = 10_000  # different products, so that no cache of one row flatters anyone
CHECKED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Paths to ask for in turn, and the rows that the first of them answer.

    With `follow`, the path is where the first answer's `next` leads: a page found by a cursor.
    """

    paths: list[str]
    answers: list[list[Row]]
    about: str = ""  # tells a scenario's questions apart
    follow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    summary: str
    questions: Callable[[Connection], list[Question]]
    contenders: tuple[Contender, ...] = UNCACHED


def connect(url: str) -> Connection:
    return psycopg.connect(
        url,
        autocommit=True,
        row_factory=dict_row,
        options="-c TimeZone=UTC -c default_transaction_read_only=on",
    )


def _listed(limit: int) -> Callable[[Connection], list[Question]]:
    def questions(database: Connection) -> list[Question]:
        rows = database.execute(LISTED, (0, limit)).fetchall()
        return [Question(paths=[f"/api/products?limit={limit}"], answers=[rows])]

    return questions


def _detail(database: Connection) -> list[Question]:
    last = _value(database, "SELECT max(id) AS value FROM products_product")
    drawn = random.Random(1).choices(range(1, last + 1), k=DETAILS)  # noqa: S311
    present = "SELECT array_agg(id) AS value FROM products_product WHERE id = ANY(%s)"
    found = sorted(_value(database, present, (drawn,)))
    random.Random(2).shuffle(found)  # noqa: S311
    rows = {row["id"]: row for row in database.execute(DETAILED, (found[:CHECKED],)).fetchall()}
    return [
        Question(
            paths=[f"/api/products/{product}" for product in found],
            answers=[[rows[product]] for product in found[:CHECKED]],
        )
    ]


def _depth(database: Connection) -> list[Question]:
    rows = _value(database, "SELECT count(*) AS value FROM products_product")
    return [_page_from(database, 0), _page_from(database, max(0, min(rows * 99 // 100, rows - 300)))]


def _page_from(database: Connection, row: int) -> Question:
    """The second 100 rows from the time of `row` on, at a cursor."""
    start = database.execute(LISTED, (row, 1)).fetchall()[0]["time_created"].isoformat()
    return Question(
        paths=[f"/api/products?limit=100&created_after={start.replace('+00:00', 'Z')}"],
        answers=[database.execute(FROM, (start,)).fetchall()],
        about=f"{row:,} rows deep",
        follow=True,
    )


def _value(database: Connection, query: LiteralString, parameters: tuple[Any, ...] = ()) -> Any:
    return database.execute(query, parameters).fetchall()[0]["value"]


SCENARIOS = {
    "list100": Scenario(summary="the first 100 products by time", questions=_listed(100)),
    "list10": Scenario(summary="the first 10 products by time", questions=_listed(10)),
    "detail": Scenario(
        summary=f"one product, of {DETAILS:,} by chance, with its category", questions=_detail
    ),
    "depth": Scenario(
        summary="100 products at a cursor, at the beginning and 99% into the table",
        questions=_depth,
        contenders=(SUB10,),
    ),
    "cached100": Scenario(
        summary="the first 100 products by time, out of a cache", questions=_listed(100), contenders=CACHED
    ),
}
