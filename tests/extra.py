"""Extra products of a test's own: the shop's and the sample's tables have the same columns."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql

from tests.spare import Database

# For a query: the sessions of the database that it runs in. Other tests run on the same server.
OWN_SESSIONS = "pg_stat_activity WHERE datname = current_database()"
FIRST_EXTRA = 1_000_000  # ids from here on are a test's own; the seeded rows stay as they are

INSERT = """
    INSERT INTO {product} (id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty,
                           time_created, category_id)
    VALUES (%(id)s, %(low_price)s, %(high_price)s, %(demand_qty)s, 0, 0, 0, %(time_created)s,
            (SELECT id FROM {category} WHERE slug = %(category)s))
"""
PLAIN = {"low_price": 1, "high_price": 2, "demand_qty": 0, "time_created": "2030-01-01Z", "category": None}


@contextmanager
def connected(database: Database, app: str) -> Iterator["psycopg.Connection[Any]"]:
    """A connection outside any transaction of the test; the extra rows of the app are gone afterwards."""
    with closing(database.connect()) as connection:
        yield connection
        product = sql.Identifier(f"{app}_product")
        connection.execute(sql.SQL("DELETE FROM {} WHERE id >= %s").format(product), [FIRST_EXTRA])


def inserter(connection: "psycopg.Connection[Any]", app: str) -> Callable[..., int]:
    """A function that inserts one extra product of the app, and returns its id."""
    tables = {name: sql.Identifier(f"{app}_{name}") for name in ("product", "category")}

    def insert(number: int = 0, **values: Any) -> int:
        product = FIRST_EXTRA + number
        connection.execute(sql.SQL(INSERT).format(**tables), PLAIN | values | {"id": product})
        return product

    return insert
