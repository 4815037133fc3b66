"""django-bolt with typed async handlers, msgspec structs, and the ORM on django-bolt's thread pool."""

from datetime import datetime
from decimal import Decimal

import msgspec
from django.shortcuts import aget_object_or_404
from django_bolt import BoltAPI

from ops.tools.lab.contenders.shop.models import Product

api = BoltAPI(enable_logging=False)


class ProductOut(msgspec.Struct):
    id: int
    low_price: Decimal
    high_price: Decimal
    demand_qty: int
    offers_qty: int
    bought_qty: int
    sold_qty: int
    time_created: datetime


class ProductDetail(ProductOut):
    category: str | None


@api.get("/api/products")
async def list_products(limit: int = 100) -> list[ProductOut]:
    return Product.objects.order_by("time_created", "id")[:limit]


@api.get("/api/products/{product_id}")
async def get_product(product_id: int) -> ProductDetail:
    product = await aget_object_or_404(Product.objects.select_related("category"), pk=product_id)
    return ProductDetail(
        id=product.id,
        low_price=product.low_price,
        high_price=product.high_price,
        demand_qty=product.demand_qty,
        offers_qty=product.offers_qty,
        bought_qty=product.bought_qty,
        sold_qty=product.sold_qty,
        time_created=product.time_created,
        category=product.category and product.category.slug,
    )
