"""The same with cache-aside of a product by Django's cache, as its low-level API has it: 200 ms.

What is kept is the answer's dictionary, which Ninja writes as JSON. A write deletes it.
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
    """The answer as it is kept: the category is its slug already."""

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
