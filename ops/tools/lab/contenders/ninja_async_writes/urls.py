"""Stock Ninja with async views, which write by the ORM's own async methods; these run in a thread."""

from django.http import HttpRequest
from django.shortcuts import aget_object_or_404
from django.urls import path
from django.utils import timezone
from ninja import NinjaAPI, PatchDict
from ninja.errors import HttpError

from ops.tools.lab.contenders.ninja_async.urls import Page, ProductDetail, get_product, list_products
from ops.tools.lab.contenders.ninja_sync_writes.schemas import ApiKey, ProductCreation, ProductReplacement
from ops.tools.lab.contenders.shop.models import Category, Product

api = NinjaAPI(urls_namespace="writes")
api.get("/products", response=Page)(list_products)
api.get("/products/{int:product_id}", response=ProductDetail)(get_product)


async def named(slug: str | None) -> Category | None:
    if slug is None:
        return None
    category = await Category.objects.filter(slug=slug).afirst()
    if category is None:
        raise HttpError(422, "category names no row")
    return category


async def saved(product_id: int, values: dict) -> Product:
    product = await aget_object_or_404(Product.objects.select_related("category"), pk=product_id)
    for name, value in values.items():
        setattr(product, name, await named(value) if name == "category" else value)
    await product.asave()
    return product


@api.post("/products", response={201: ProductDetail}, auth=ApiKey())
async def create_product(request: HttpRequest, payload: ProductCreation):
    values = payload.dict()
    values["time_created"] = values["time_created"] or timezone.now()
    return 201, await Product.objects.acreate(**values | {"category": await named(values["category"])})


@api.patch("/products/{int:product_id}", response=ProductDetail, auth=ApiKey())
async def change_product(request: HttpRequest, product_id: int, payload: PatchDict[ProductCreation]):
    return await saved(product_id, payload)


@api.put("/products/{int:product_id}", response=ProductDetail, auth=ApiKey())
async def replace_product(request: HttpRequest, product_id: int, payload: ProductReplacement):
    return await saved(product_id, payload.dict())


@api.delete("/products/{int:product_id}", response={204: None}, auth=ApiKey())
async def delete_product(request: HttpRequest, product_id: int):
    await (await aget_object_or_404(Product, pk=product_id)).adelete()
    return 204, None


urlpatterns = [path("api/", api.urls)]
