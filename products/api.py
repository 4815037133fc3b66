"""The endpoints: parse, one call, respond."""

from typing import Annotated

from django.http import Http404, HttpRequest, HttpResponse
from ninja import Path, Router

from api.cache.policy import cached, one
from api.openapi import describe_item, describe_list
from api.pages import respond
from products import queries
from products.models import Category, Product
from products.queries import CATEGORIES, PRODUCTS

router = Router()

ProductId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The product's id.", example=1)]


@router.get("/products", tags=["products"], summary="A page of products", **describe_list(PRODUCTS))
@cached("products", key=PRODUCTS.spell, fresh=10, stale=60, depends_on=[Product, Category])
async def list_products(request: HttpRequest) -> HttpResponse:
    """Follow `next` and `previous`; every page costs the same, however deep it lies."""
    page = PRODUCTS.parse(request)
    return respond(request, page, await page.fetch())


@router.get("/products/{id:product_id}", tags=["products"], summary="One product", **describe_item(PRODUCTS))
@cached(
    "product",
    key=PRODUCTS.spell_fields,
    fresh=10,
    stale=60,
    depends_on=[one(Product, "product_id"), Category],
)
async def get_product(request: HttpRequest, product_id: ProductId) -> HttpResponse:
    """All its fields unless `fields` names some."""
    fields = PRODUCTS.parse_fields(request)
    product = await queries.get_product(product_id, fields)
    if product is None:
        raise Http404
    return HttpResponse(product, content_type="application/json")


@router.get("/categories", tags=["categories"], summary="A page of categories", **describe_list(CATEGORIES))
@cached("categories", key=CATEGORIES.spell, fresh=10, stale=60, depends_on=[Category])
async def list_categories(request: HttpRequest) -> HttpResponse:
    """Sorted by their slug."""
    page = CATEGORIES.parse(request)
    return respond(request, page, await page.fetch())
