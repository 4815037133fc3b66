"""The service's routes, and the tests' own: pages that go stale soon, and the ways of writing."""

from contextlib import suppress

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from ninja import Router

from api.cache.changes import ainvalidate
from api.cache.policy import cached, one
from api.ninja import Api
from config.urls import urlpatterns as own
from ops.postgres.pool import pool
from ops.postgres.statement import Param, Statement
from products import queries
from products.models import Product
from products.queries import PRODUCTS

FRESH, STALE = 1, 2  # seconds
INCREMENT = Statement(
    "UPDATE products_product SET demand_qty = demand_qty + 1 WHERE id = %s RETURNING demand_qty::text",
    (Param("id"),),
)
router = Router()


@router.get("/quick/{id:product_id}")
@cached("quick", key=PRODUCTS.spell_fields, fresh=FRESH, stale=STALE, depends_on=[one(Product, "product_id")])
async def quick(request: HttpRequest, product_id: int) -> HttpResponse:
    """A product, which is soon too old to be sent."""
    return await _answer(request, product_id)


@router.get("/lasting/{id:product_id}")
@cached("lasting", key=PRODUCTS.spell_fields, fresh=FRESH, stale=60, depends_on=[one(Product, "product_id")])
async def lasting(request: HttpRequest, product_id: int) -> HttpResponse:
    """A product, which is soon stale, and for long."""
    return await _answer(request, product_id)


async def _answer(request: HttpRequest, product_id: int) -> HttpResponse:
    product = await queries.get_product(product_id, PRODUCTS.parse_fields(request))
    if product is None:
        raise Http404
    return HttpResponse(product, content_type="application/json")


@router.post("/native/{id:product_id}")
async def write_natively(request: HttpRequest, product_id: int) -> HttpResponse:
    """Add one to a product's counter in SQL, and say so."""
    result = await pool.fetch(INCREMENT, INCREMENT.bind({"id": product_id}))
    await ainvalidate(Product, product_id)
    return HttpResponse(result.get_value(0, 0))


@router.post("/orm/{id:product_id}")
async def write_with_orm(request: HttpRequest, product_id: int) -> HttpResponse:
    """The same through the ORM, whose signal says so."""
    return HttpResponse(await sync_to_async(_increment)(product_id))


@router.post("/rollback/{id:product_id}")
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
