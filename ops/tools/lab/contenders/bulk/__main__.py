"""Ways to write many products at once, each timed alone, in turn: `python -m ops.tools.lab.contenders.bulk PLAN`.

PLAN is a JSON file that ops/tools/lab/bulk.py writes. Each line of the output is a measurement: kind, way and
milliseconds. The clock runs for the write alone, from values that are ready (for HTTP, from ready JSON on an open
connection) to the commit or the answer. A RuntimeError ends the run if Postgres then does not hold the values.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import django
import psycopg

os.environ["DJANGO_SETTINGS_MODULE"] = "ops.tools.lab.contenders.drf_writes.settings"
django.setup()

from django.db import transaction  # noqa: E402  once Django is set up

from ops.tools.lab.contenders.shop.models import Category, Product  # noqa: E402

COLUMNS = (
    *("low_price", "high_price", "demand_qty", "offers_qty", "bought_qty", "sold_qty"),
    *("time_created", "category_id"),
)
KINDS = ("numeric", "numeric", "int", "int", "int", "int", "timestamptz", "bigint")
NAMED = ", ".join(COLUMNS)
COPY = f"COPY products_product ({NAMED}) FROM STDIN"
INSERT = (
    f"INSERT INTO products_product ({NAMED})"
    f" SELECT * FROM unnest({', '.join(f'%s::{kind}[]' for kind in KINDS)})"
)
UPDATE = """
    UPDATE products_product AS p SET high_price = given.high_price, sold_qty = given.sold_qty
    FROM unnest(%s::bigint[], %s::numeric[], %s::int[]) AS given(id, high_price, sold_qty) WHERE p.id = given.id
"""
Row = dict[str, Any]


class Bench:
    """The ways to write, and their measurement. `plan` is the JSON of PLAN."""

    def __init__(self, plan: Row) -> None:
        self.plan = plan
        self.database = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
        categories = dict(Category.objects.values_list("slug", "id"))
        self.bodies: list[Row] = plan["bodies"]
        self.rows = [
            {name: body[name] for name in COLUMNS[2:6]}
            | {name: Decimal(body[name]) for name in COLUMNS[:2]}
            | {"time_created": datetime.fromisoformat(body["time_created"])}
            | {"category_id": body["category"] and categories[body["category"]]}
            for body in self.bodies
        ]
        self.ids: list[int] = plan["ids"]
        self.changes: list[Row] = []  # the new values of the next update, in the order of `ids`
        self.number = 0

    # Ways to insert. Each prepares all that does not count, and returns a function that does the insert.

    def copy(self) -> Callable[[], None]:
        values = [tuple(row[name] for name in COLUMNS) for row in self.rows]

        def run() -> None:
            with self.database.cursor() as cursor, cursor.copy(COPY) as copy:
                for row in values:
                    copy.write_row(row)

        return run

    def insert_unnest(self) -> Callable[[], None]:
        columns = [[row[name] for row in self.rows] for name in COLUMNS]
        return lambda: self._execute(INSERT, columns)

    def save(self) -> Callable[[], None]:
        def run() -> None:
            for row in self.rows:
                Product(**row).save()

        return run

    def save_in_a_transaction(self) -> Callable[[], None]:
        return transaction.atomic(self.save())

    def bulk_create(self) -> Callable[[], None]:
        return lambda: Product.objects.bulk_create([Product(**row) for row in self.rows])

    def post_bulk(self) -> Callable[[], None]:
        return self._request("sub10", "POST", self.bodies)

    def post_bulk_minimal(self) -> Callable[[], None]:
        return self._request("sub10", "POST", self.bodies, Prefer="return=minimal")

    def drf_many(self) -> Callable[[], None]:
        return self._request("drf", "POST", self.bodies)

    # Ways to update, in the same form.

    def update_from(self) -> Callable[[], None]:
        columns = [[row[name] for row in self.changes] for name in ("high_price", "sold_qty")]
        return lambda: self._execute(UPDATE, [self.ids, *columns])

    def save_changed(self) -> Callable[[], None]:
        """Save the rows one by one. They are read before the clock runs."""
        products = self._changed()

        def run() -> None:
            for product in products:
                product.save()

        return run

    def save_changed_in_a_transaction(self) -> Callable[[], None]:
        return transaction.atomic(self.save_changed())

    def bulk_update(self) -> Callable[[], None]:
        products = self._changed()
        return lambda: Product.objects.bulk_update(products, ["high_price", "sold_qty"])

    def update_of_one_value(self) -> Callable[[], None]:
        """Give all rows the same values, which is less work than other values for each."""
        for row in self.changes:
            row.update(self.changes[0])
        return lambda: Product.objects.filter(id__in=self.ids).update(**self.changes[0])

    def patch_bulk(self) -> Callable[[], None]:
        return self._request("sub10", "PATCH", self._items())

    def patch_bulk_minimal(self) -> Callable[[], None]:
        return self._request("sub10", "PATCH", self._items(), Prefer="return=minimal")

    # Parts that several ways share.

    def _execute(self, statement: str, values: Any) -> None:
        self.database.execute(statement, values, prepare=True)

    def _changed(self) -> list[Product]:
        products = Product.objects.in_bulk(self.ids)
        for key, row in zip(self.ids, self.changes, strict=True):
            for name, value in row.items():
                setattr(products[key], name, value)
        return [products[key] for key in self.ids]

    def _items(self) -> list[Row]:
        return [
            {"id": key, "high_price": str(row["high_price"]), "sold_qty": row["sold_qty"]}
            for key, row in zip(self.ids, self.changes, strict=True)
        ]

    def _request(self, service: str, method: str, items: list[Row], **fields: str) -> Callable[[], None]:
        connection = HTTPConnection(urlsplit(self.plan["services"][service]).netloc, timeout=60)
        connection.connect()
        content = json.dumps(items)
        headers = {"Content-Type": "application/json", "X-API-Key": self.plan["key"], **fields}

        def run() -> None:
            connection.request(method, "/api/products/bulk", content, headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if answer.status not in (200, 201):
                raise RuntimeError(f"{service} answers {method} with {answer.status}: {body[:300]!r}")

        return run

    def inserted(self, way: Callable[[], Callable[[], None]]) -> float:
        """Insert by one way, check the rows, delete them, and return the milliseconds of the insert."""
        (last,) = self._one("SELECT coalesce(max(id), 0) FROM products_product")
        seconds = _timed(way())
        found = self._one(
            "SELECT count(*), sum(low_price), sum(sold_qty), max(time_created), count(category_id)"
            " FROM products_product WHERE id > %s",
            last,
        )
        expected = (
            len(self.rows),
            sum(row["low_price"] for row in self.rows),
            sum(row["sold_qty"] for row in self.rows),
            max(row["time_created"] for row in self.rows),
            sum(row["category_id"] is not None for row in self.rows),
        )
        _check(way, found, expected)
        self.database.execute("DELETE FROM products_product WHERE id > %s", (last,))
        return seconds * 1000

    def updated(self, way: Callable[[], Callable[[], None]]) -> float:
        """Update by one way, with other values than the last time, check them, and return the milliseconds."""
        self.number += 1
        self.changes = [
            {"high_price": Decimal(2000 + (at + self.number) % 1000) / 100, "sold_qty": self.number + at}
            for at in range(len(self.ids))
        ]
        seconds = _timed(way())
        found = self._one(
            "SELECT sum(high_price), sum(sold_qty) FROM products_product WHERE id = ANY(%s)", self.ids
        )
        expected = tuple(sum(row[name] for row in self.changes) for name in ("high_price", "sold_qty"))
        _check(way, found, expected)
        return seconds * 1000

    def _one(self, query: str, *values: Any) -> tuple[Any, ...]:
        return self.database.execute(query, values).fetchall()[0]


def _timed(write: Callable[[], None]) -> float:
    start = perf_counter()
    write()
    return perf_counter() - start


def _check(way: Callable[..., Any], found: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    if found != expected:
        raise RuntimeError(f"{way.__name__} wrote {found} instead of {expected}")


def main(file: Path) -> None:
    bench = Bench(json.loads(file.read_text()))
    inserts = {
        "psycopg, COPY": bench.copy,
        "psycopg, INSERT ... unnest": bench.insert_unnest,
        "POST /api/products/bulk": bench.post_bulk,
        "the same, return=minimal": bench.post_bulk_minimal,
        "bulk_create()": bench.bulk_create,
        "save() in a loop, one transaction": bench.save_in_a_transaction,
        "save() in a loop": bench.save,
        "DRF, many=True": bench.drf_many,
    }
    updates = {
        "psycopg, UPDATE ... FROM unnest": bench.update_from,
        "PATCH /api/products/bulk": bench.patch_bulk,
        "the same, return=minimal": bench.patch_bulk_minimal,
        "update() of one value": bench.update_of_one_value,
        "bulk_update()": bench.bulk_update,
        "save() in a loop, one transaction": bench.save_changed_in_a_transaction,
        "save() in a loop": bench.save_changed,
    }
    for number in range(bench.plan["rounds"] + 1):  # the first is a warm-up
        for kind, ways, measure in (("insert", inserts, bench.inserted), ("update", updates, bench.updated)):
            for name, way in ways.items():
                milliseconds = measure(way)
                if number:
                    print(json.dumps({"kind": kind, "way": name, "ms": milliseconds}), flush=True)


main(Path(sys.argv[1]))
