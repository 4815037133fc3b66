"""The URLs of `ninja_sync_writes` with cache-aside: a product is kept for 200 ms by Django's low-level cache API.

The cache keeps the dictionary of the answer, which Ninja writes as JSON. A PUT deletes it.
"""

from django.core.cache import cache
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import path
from ninja import NinjaAPI

from ops.tools.lab.contenders.ninja_sync.urls import Page, ProductDetail, ProductOut, list_products
from ops.tools.lab.contenders.ninja_sync_writes.schemas import ApiKey, ProductReplacement
from ops.tools.lab.contenders.ninja_sync_writes.urls import create_product, saved
from ops.tools.lab.contenders.shop.models import Product

LIFE = 0.2  # seconds

api = NinjaAPI(urls_namespace="cached")
api.get("/products", response=Page)(list_products)
api.post("/products", response={201: ProductDetail}, auth=ApiKey())(create_product)


class Kept(ProductOut):
    """The answer as the cache keeps it, where `category` is the slug already."""

    category: str | None = None


@api.get("/products/{int:product_id}", response=Kept)
def get_product(request: HttpRequest, product_id: int):
    data = cache.get(product_id)
    if data is None:
        product = get_object_or_404(Product.objects.select_related("category"), pk=product_id)
        data = ProductDetail.from_orm(product).dict()
        cache.set(product_id, data, LIFE)
    return data


@api.put("/products/{int:product_id}", response=ProductDetail, auth=ApiKey())
def replace_product(request: HttpRequest, product_id: int, payload: ProductReplacement):
    product = saved(product_id, payload.dict())
    cache.delete(product_id)
    return product


urlpatterns = [path("api/", api.urls)]
