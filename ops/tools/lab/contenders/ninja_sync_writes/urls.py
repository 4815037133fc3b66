"""Stock Ninja with sync views, which write as its CRUD example does: get the row, set its attributes, save it."""

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import path
from django.utils import timezone
from ninja import NinjaAPI, PatchDict
from ninja.errors import HttpError

from ops.tools.lab.contenders.ninja_sync.urls import Page, ProductDetail, get_product, list_products
from ops.tools.lab.contenders.ninja_sync_writes.schemas import ApiKey, ProductCreation, ProductReplacement
from ops.tools.lab.contenders.shop.models import Category, Product

api = NinjaAPI(urls_namespace="writes")
api.get("/products", response=Page)(list_products)
api.get("/products/{int:product_id}", response=ProductDetail)(get_product)


def named(slug: str | None) -> Category | None:
    if slug is None:
        return None
    category = Category.objects.filter(slug=slug).first()
    if category is None:
        raise HttpError(422, "category names no row")
    return category


def saved(product_id: int, values: dict) -> Product:
    product = get_object_or_404(Product.objects.select_related("category"), pk=product_id)
    for name, value in values.items():
        setattr(product, name, named(value) if name == "category" else value)
    product.save()
    return product


@api.post("/products", response={201: ProductDetail}, auth=ApiKey())
def create_product(request: HttpRequest, payload: ProductCreation):
    values = payload.dict()
    values["time_created"] = values["time_created"] or timezone.now()
    return 201, Product.objects.create(**values | {"category": named(values["category"])})


@api.patch("/products/{int:product_id}", response=ProductDetail, auth=ApiKey())
def change_product(request: HttpRequest, product_id: int, payload: PatchDict[ProductCreation]):
    return saved(product_id, payload)


@api.put("/products/{int:product_id}", response=ProductDetail, auth=ApiKey())
def replace_product(request: HttpRequest, product_id: int, payload: ProductReplacement):
    return saved(product_id, payload.dict())


@api.delete("/products/{int:product_id}", response={204: None}, auth=ApiKey())
def delete_product(request: HttpRequest, product_id: int):
    get_object_or_404(Product, pk=product_id).delete()
    return 204, None


urlpatterns = [path("api/", api.urls)]
