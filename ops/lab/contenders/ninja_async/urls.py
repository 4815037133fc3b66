"""Stock Ninja, async views, the ORM's own async iteration (django-ninja.dev/guide/async)."""

from datetime import datetime
from decimal import Decimal

from django.http import HttpRequest
from django.shortcuts import aget_object_or_404
from django.urls import path
from ninja import Field, NinjaAPI, Schema

from ops.lab.contenders.shop.models import Product

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
async def list_products(request: HttpRequest, limit: int = 100):
    products = Product.objects.order_by("time_created", "id")[:limit]
    return {"results": [product async for product in products]}


@api.get("/products/{int:product_id}", response=ProductDetail)
async def get_product(request: HttpRequest, product_id: int):
    return await aget_object_or_404(Product.objects.select_related("category"), pk=product_id)


urlpatterns = [path("api/", api.urls)]
