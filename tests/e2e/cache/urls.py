"""The shop's routes, and others: pages that go stale soon, and the ways of writing."""

from contextlib import suppress

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path
from ninja import Router

from api.cache.changes import ainvalidate
from api.cache.policy import cached
from api.ninja import Api
from api.openapi import describe_list
from ops.postgres.pool import fetch
from ops.postgres.statement import Param, Statement
from tests.shop.models import Product
from tests.shop.queries import PRODUCT, PRODUCTS
from tests.shop.urls import urlpatterns as own

FRESH, STALE = 1, 2  # seconds
COST = 2  # seconds: as if an expensive answer took so long
INCREMENT = Statement(
    "UPDATE shop_product SET demand_qty = demand_qty + 1 WHERE id = %s RETURNING demand_qty::text",
    (Param("id"),),
    repeatable=False,
)
router = Router()


@router.get("/quick/{id:product_id}")
@cached(PRODUCT, name="tests.quick", fresh=FRESH, stale=STALE)
async def quick(request: HttpRequest, product_id: int) -> HttpResponse:
    """A product, which is soon too old to be sent."""
    return await PRODUCT.respond(request, product_id)


@router.get("/lasting/{id:product_id}")
@cached(PRODUCT, name="tests.lasting", fresh=FRESH, stale=60, cost=COST)
async def lasting(request: HttpRequest, product_id: int) -> HttpResponse:
    """A product, which is soon stale, and for long; as if it were expensive."""
    return await PRODUCT.respond(request, product_id)


@router.get("/expensive", **describe_list(PRODUCTS))
@cached(PRODUCTS, name="tests.expensive", fresh=10, stale=60, cost=COST)
async def expensive(request: HttpRequest) -> HttpResponse:
    """A page of products, as if it were expensive."""
    return await PRODUCTS.respond(request)


@router.post("/native/{id:product_id}", auth=None)
async def write_natively(request: HttpRequest, product_id: int) -> HttpResponse:
    """Add one to a product's counter in SQL, and say so."""
    result = await fetch(INCREMENT, INCREMENT.bind({"id": product_id}))
    await ainvalidate(Product, product_id)
    return HttpResponse(result.get_value(0, 0))


@router.post("/orm/{id:product_id}", auth=None)
async def write_with_orm(request: HttpRequest, product_id: int) -> HttpResponse:
    """The same through the ORM, whose signal says so."""
    return HttpResponse(await sync_to_async(_increment)(product_id))


@router.post("/rollback/{id:product_id}", auth=None)
async def write_and_roll_back(request: HttpRequest, product_id: int) -> HttpResponse:
    """The same, and then not."""

    @transaction.atomic
    def fail() -> None:
        _increment(product_id)
        raise Unwanted

    with suppress(Unwanted):
        await sync_to_async(fail)()
    return HttpResponse()


class Unwanted(Exception):
    """Rolls a transaction back."""


@transaction.atomic
def _increment(product_id: int) -> int:
    product = Product.objects.select_for_update().get(pk=product_id)
    product.demand_qty += 1
    product.save()
    return product.demand_qty


tests = Api(urls_namespace="tests")
tests.add_router("", router)
urlpatterns = [*own, path("tests/", tests.urls)]
