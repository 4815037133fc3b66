"""Stock Ninja with sync views."""

from datetime import datetime
from decimal import Decimal

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import path
from ninja import Field, NinjaAPI, Schema

from ops.tools.lab.contenders.shop.models import Category, Product

api = NinjaAPI()


class ProductOut(Schema):
    id: int
    low_price: Decimal
    high_price: Decimal
    demand_qty: int
    offers_qty: int
    bought_qty: int
    sold_qty: int
    time_created: datetime


class ProductDetail(ProductOut):
    category: str | None = Field(None, alias="category.slug")


class Page(Schema):
    results: list[ProductOut]


@api.get("/products", response=Page)
def list_products(request: HttpRequest, limit: int = 100):
    products = Product.objects.order_by("time_created", "id")[:limit]
    return {"results": products}


@api.get("/products/{int:product_id}", response=ProductDetail)
def get_product(request: HttpRequest, product_id: int):
    return get_object_or_404(Product.objects.select_related("category"), pk=product_id)


class ProductInCategory(Schema):
    id: int
    low_price: Decimal
    high_price: Decimal
    sold_qty: int


class CategoryDetail(Schema):
    id: int
    slug: str
    name: str
    newest: list[ProductInCategory]


@api.get("/categories/{int:category_id}", response=CategoryDetail)
def get_category(request: HttpRequest, category_id: int):
    """Read a category and its newest products by two statements, as prefetch_related does.

    A Prefetch of a slice would number all rows of the category.
    """
    category = get_object_or_404(Category, pk=category_id)
    category.newest = category.product_set.order_by("-time_created", "-id")[:20]
    return category


urlpatterns = [path("api/", api.urls)]
