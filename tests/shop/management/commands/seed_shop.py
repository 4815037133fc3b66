"""Fill the shop's tables until there are so many products: `manage.py seed_shop --rows 1000`."""

import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connection
from django.db.models import Max

from api import invalidate
from tests.shop.models import Category, Order, OrderLine, Product, Tag, Voucher

CATEGORIES = [
    *("art", "baby", "beauty", "books", "camera", "car", "computer", "fashion", "food", "garden"),
    *("health", "home", "jewellery", "kitchen", "music", "office", "pets", "sport", "tools", "toys"),
]
ORDERS = 9
# Row i follows from i alone; every 21st has no category, and four or five in a row share their minute.
INSERT = """
    INSERT INTO shop_product (id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty,
                              time_created, category_id)
    SELECT i, low, low + (h >> 16 & 65535) %% 50000 / 100.0,
           h >> 32 & 1023, h >> 42 & 255, h >> 50 & 127, h >> 57 & 63,
           date_trunc('minute', timestamptz '2020-01-01 00:00:00Z' + i * interval '13.37 seconds'),
           (%(categories)s::bigint[])[1 + i %% 21]
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS i,
         LATERAL (SELECT hashint8extended(i, 1) AS h) AS hashed,
         LATERAL (SELECT (h & 65535) %% 50000 / 100.0 AS low) AS priced
"""


class Command(BaseCommand):
    help = "Add made-up products until there are ROWS of them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rows", type=int, required=True, help="how many products to have")

    def handle(self, *_args: Any, rows: int, **_options: Any) -> None:
        names = [Category(slug=slug, name=slug.capitalize()) for slug in CATEGORIES]
        Category.objects.bulk_create(names, ignore_conflicts=True)
        own = Category.objects.filter(slug__in=CATEGORIES).order_by("slug")
        voucher = Voucher(pk=1, code="seeded", percent=30_000, category=own[0])  # the documentation's example
        Voucher.objects.bulk_create([voucher], ignore_conflicts=True)
        last = Product.objects.aggregate(last=Max("id"))["last"] or 0
        values = {"categories": [*own.values_list("pk", flat=True)], "first": last + 1, "last": rows}
        with connection.cursor() as cursor:
            cursor.execute(INSERT, values)
            for statement in connection.ops.sequence_reset_sql(self.style, [Product, Voucher]):
                cursor.execute(statement)
            cursor.execute("ANALYZE shop_product")
        invalidate(Product)
        if rows and not Order.objects.exists():
            _add_orders(voucher)


def _add_orders(voucher: Voucher) -> None:
    """Order i has i - 1 lines, and every second one has the voucher and a tag."""
    tags = Tag.objects.bulk_create([Tag(slug="gift"), Tag(slug="express")])
    placed = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for number in range(1, ORDERS + 1):
        order = Order.objects.create(
            number=f"2020-{number:06}", placed=placed, voucher=voucher if number % 2 else None
        )
        order.tags.set(tags[: number % 3])
        OrderLine.objects.bulk_create(
            OrderLine(order=order, position=at, product_id=at, quantity=number) for at in range(1, number)
        )
