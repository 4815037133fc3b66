"""Everything that reads products: the listings with their access paths, and one function a question."""

from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import QuerySet

from api.access import AccessPath, at_least, at_most, below, equals
from api.listing import Listing, Page
from products.models import Category, Product
from products.schemas import CategoryOut, ProductOut

PRODUCTS = Listing(
    "products",
    Product,
    ProductOut,
    AccessPath(
        "time_created",
        created_after=at_least(),
        created_before=below(),
        category=equals("category", by="slug"),
    ),
    AccessPath("low_price", low_price_min=at_least(), low_price_max=at_most()),
    AccessPath("high_price", high_price_min=at_least(), high_price_max=at_most()),
    AccessPath("id"),
    on_request=("category",),  # a join: it costs only those who ask for it
)

CATEGORIES = Listing("categories", Category, CategoryOut, AccessPath("slug"))


async def list_products(page: Page) -> Sequence[tuple[Any, ...]]:
    return await _rows(page.select(Product.objects.all()))


async def list_categories(page: Page) -> Sequence[tuple[Any, ...]]:
    return await _rows(page.select(Category.objects.all()))


async def get_product(product_id: int, fields: Sequence[str]) -> tuple[Any, ...] | None:
    """The product's `fields`, or None where there is no such product."""
    columns = [PRODUCTS.columns[field] for field in fields]
    return await Product.objects.filter(pk=product_id).values_list(*columns).order_by().afirst()


@sync_to_async
def _rows(queryset: "QuerySet[Any, tuple[Any, ...]]") -> Sequence[tuple[Any, ...]]:
    return list(queryset)
