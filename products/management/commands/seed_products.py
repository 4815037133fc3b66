"""Fill the products table with made-up rows: `manage.py seed_products --rows 10000000`."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection
from django.db.models import Index, Max

from api import invalidate
from products.models import Category, Product

BATCH = 100_000  # rows of an INSERT, each a transaction: a run goes on where an interrupted one stopped
MOST_ROWS = 1_000_000_000
CATEGORIES = [
    *("art", "baby", "beauty", "books", "camera", "car", "computer", "fashion", "food", "garden"),
    *("health", "home", "jewellery", "kitchen", "music", "office", "pets", "sport", "tools", "toys"),
]

# Row i depends only on i and the seed, so any number of runs ends in the same rows. hashint8extended is Postgres's
# own hash of a bigint; groups of its bits serve as independent draws. Rows are 13.37 s apart, so 10 million span four
# years; every 21st row has no category.
INSERT = """
    INSERT INTO {table} (id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty,
                         time_created, category_id)
    SELECT i, low, low + (h >> 16 & 65535) %% 50000 / 100.0,
           h >> 32 & 1023, h >> 42 & 255, h >> 50 & 127, h >> 57 & 63,
           timestamptz '2020-01-01 00:00:00Z' + i * interval '13.37 seconds',
           (%(categories)s::bigint[])[1 + i %% 21]
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i,
         LATERAL (SELECT hashint8extended(i, %(seed)s) AS h) AS hashed,
         LATERAL (SELECT (h & 65535) %% 50000 / 100.0 AS low) AS priced
"""


class Command(BaseCommand):
    help = (
        "Add made-up products until the table has ROWS of them. Running it again adds only what is missing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--rows", type=int, default=100_000, help="how many products to have (%(default)s)"
        )
        parser.add_argument("--seed", type=int, default=1, help="another seed makes other rows (%(default)s)")

    def handle(self, *_args: Any, rows: int, seed: int, **_options: Any) -> None:
        if not 0 <= rows <= MOST_ROWS:
            raise CommandError(f"--rows must be from 0 to {MOST_ROWS}")
        if not -(2**63) <= seed < 2**63:
            raise CommandError("--seed must be a 64-bit integer")
        connection.ensure_connection()  # manage.py has a message for a server that cannot be reached
        try:
            self.top_up(rows, seed)
        except DatabaseError as error:
            raise CommandError(
                f"{str(error).strip().splitlines()[0]} (has `manage.py migrate` run?)"
            ) from error

    def top_up(self, rows: int, seed: int) -> None:
        present = Product.objects.count()
        if present >= rows:
            self.add_missing_indexes()
            self.stdout.write(
                f"There are {present:,} products already, {rows:,} were asked for: nothing to add."
            )
            return
        Category.objects.bulk_create(
            [Category(slug=slug, name=slug.capitalize()) for slug in CATEGORIES], ignore_conflicts=True
        )
        started = time.monotonic()
        first = (Product.objects.aggregate(last=Max("id"))["last"] or 0) + 1
        if rows - present > max(present, BATCH):
            self.drop_indexes()
        try:
            self.insert(first, first + rows - present, seed)
        finally:
            invalidate(Product)
        self.add_missing_indexes()
        self.finish()
        seconds = time.monotonic() - started
        self.stdout.write(f"Added {rows - present:,} products in {seconds:.1f} s; there are {rows:,} now.")

    def drop_indexes(self) -> None:
        """Drop the indexes before the table more than doubles: 10 million rows took 150 s with them, 70 s without."""
        with connection.schema_editor() as editor:
            for index in self.indexes(present=True):
                editor.remove_index(Product, index)

    def add_missing_indexes(self) -> None:
        """Build the indexes that are missing, also after an interrupted run."""
        for index in self.indexes(present=False):
            self.stdout.write(f"Building the index {index.name} ...")
            with connection.schema_editor() as editor:
                editor.add_index(Product, index)

    def indexes(self, *, present: bool) -> list[Index]:
        with connection.cursor() as cursor:
            names = connection.introspection.get_constraints(cursor, Product._meta.db_table)
        return [index for index in Product._meta.indexes if (index.name in names) == present]

    def insert(self, first: int, end: int, seed: int) -> None:
        categories = [
            *Category.objects.filter(slug__in=CATEGORIES).order_by("slug").values_list("pk", flat=True)
        ]
        statement = INSERT.format(table=connection.ops.quote_name(Product._meta.db_table))
        for start in range(first, end, BATCH):
            last = min(start + BATCH, end) - 1
            with connection.cursor() as cursor:
                cursor.execute(
                    statement, {"categories": categories, "first": start, "last": last, "seed": seed}
                )
            self.progress(last - first + 1, end - first)

    def finish(self) -> None:
        """Let the next id follow the last one, and let the planner and index-only scans know the new rows."""
        table = connection.ops.quote_name(Product._meta.db_table)
        with connection.cursor() as cursor:
            for statement in connection.ops.sequence_reset_sql(self.style, [Product]):
                cursor.execute(statement)
            cursor.execute(f"VACUUM (ANALYZE) {table}")

    def progress(self, done: int, total: int) -> None:
        filled = 40 * done // total
        bar = f"[{'#' * filled}{'.' * (40 - filled)}] {done:,} of {total:,} products"
        if self.stdout.isatty():
            self.stdout.write(f"\r{bar}", ending="" if done < total else "\n")
        elif done == total or done * 10 // total > (done - BATCH) * 10 // total:
            self.stdout.write(bar)
        self.stdout.flush()
