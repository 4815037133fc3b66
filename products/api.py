"""The endpoints of products and categories."""

from typing import Annotated

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Path, Query, Router

from api import (
    bulk,
    cached,
    describe_answer,
    describe_change,
    describe_change_many,
    describe_create,
    describe_create_many,
    describe_delete,
    describe_delete_many,
    describe_export,
    describe_import,
    describe_item,
    describe_list,
    describe_replace,
    describe_stats,
    idempotent,
    rate_class,
    scope,
    streamed_body,
)  # fmt: skip
from products.commands import PRODUCT_BULK, PRODUCT_IMPORT, PRODUCT_WRITES
from products.queries import CATEGORIES, CATEGORY, PRODUCT, PRODUCT_EXPORT, PRODUCT_STATS, PRODUCTS
from products.quotes import quote
from products.schemas import QuoteOut

router = Router()
write = scope("products:write")

ProductId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The product's id.", example=1)]
Currency = Annotated[str, Query(pattern="^[A-Z]{3}$", description="A code of ISO 4217.", example="EUR")]


@router.get("/products", tags=["products"], summary="A page of products", **describe_list(PRODUCTS))
@cached(PRODUCTS, fresh=10, stale=60)
async def list_products(request: HttpRequest) -> HttpResponse:
    """Follow `next` and `previous`; every page costs the same, however deep it lies."""
    return await PRODUCTS.respond(request)


@router.get(
    "/products/stats", tags=["products"], summary="Statistics of products", **describe_stats(PRODUCT_STATS)
)
@cached(PRODUCT_STATS, fresh=60, stale=86400)
async def get_product_stats(request: HttpRequest) -> HttpResponse:
    """Exact as of `as_of`: about a minute ago if clients ask often, and a day ago at most. `by` adds groups."""
    return await PRODUCT_STATS.respond(request)


@router.get(
    "/products/export", tags=["products"], summary="All products as a file", **describe_export(PRODUCT_EXPORT)
)
async def export_products(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """A stream of any length; all rows are of one moment. They have no particular order unless `sort` names one."""
    return await PRODUCT_EXPORT.respond(request)


@router.get("/products/{id:product_id}", tags=["products"], summary="One product", **describe_item(PRODUCTS))
@cached(PRODUCT, fresh=10, stale=60)
async def get_product(request: HttpRequest, product_id: ProductId) -> HttpResponse:
    """All fields of the product, or those that `fields` names."""
    return await PRODUCT.respond(request, product_id)


@router.get(
    "/products/{id:product_id}/quote",
    tags=["products"],
    summary="The prices of a product in a currency",
    **describe_answer(
        QuoteOut,
        {
            422: "The currency has no rate.",
            503: "The database or the source of rates did not answer in time.",
        },
    ),
)
async def quote_product(request: HttpRequest, product_id: ProductId, currency: Currency) -> QuoteOut:
    """Uses the exchange rates of the day, or the last known rates if their source does not answer (`stale`)."""
    return await quote(product_id, currency)


@router.post(
    "/products",
    tags=["products"],
    summary="Create a product",
    auth=write,
    **describe_create(PRODUCT_WRITES),
)
@idempotent
async def create_product(request: HttpRequest) -> HttpResponse:
    """`category` is named by its slug, `time_created` is now unless it is given."""
    return await PRODUCT_WRITES.create(request)


@router.post(
    "/products/import",
    tags=["products"],
    summary="Create products without number",
    auth=write,
    **describe_import(PRODUCT_IMPORT),
)
@rate_class("bulk")
@streamed_body
async def import_products(request: HttpRequest) -> HttpResponse:
    """Creates all products or none. Each line is like the content of a POST of one product."""
    return await PRODUCT_IMPORT.respond(request)


@router.patch(
    "/products/{id:product_id}",
    tags=["products"],
    summary="Change a product",
    auth=write,
    **describe_change(PRODUCT_WRITES),
)
async def change_product(request: HttpRequest, product_id: ProductId) -> HttpResponse:
    """Changes the fields that the content has; all others stay."""
    return await PRODUCT_WRITES.change(request, product_id)


@router.put(
    "/products/{id:product_id}",
    tags=["products"],
    summary="Replace a product",
    auth=write,
    **describe_replace(PRODUCT_WRITES),
)
async def replace_product(request: HttpRequest, product_id: ProductId) -> HttpResponse:
    """Replaces all fields: the content must have each of them."""
    return await PRODUCT_WRITES.replace(request, product_id)


@router.delete(
    "/products/{id:product_id}",
    tags=["products"],
    summary="Delete a product",
    auth=write,
    **describe_delete(PRODUCT_WRITES),
)
async def delete_product(request: HttpRequest, product_id: ProductId) -> HttpResponse:
    """Deletes the product for good."""
    return await PRODUCT_WRITES.delete(request, product_id)


@router.post(
    "/products/bulk",
    tags=["products"],
    summary="Create many products",
    auth=write,
    **describe_create_many(PRODUCT_BULK),
)
@bulk
@idempotent
async def create_products(request: HttpRequest) -> HttpResponse:
    """Creates all products or none; the answer has them in the order of the items."""
    return await PRODUCT_BULK.create(request)


@router.patch(
    "/products/bulk",
    tags=["products"],
    summary="Change many products",
    auth=write,
    **describe_change_many(PRODUCT_BULK),
)
@bulk
async def change_products(request: HttpRequest) -> HttpResponse:
    """Changes all products or none. Each item has its `id`, and the fields that change."""
    return await PRODUCT_BULK.change(request)


@router.delete(
    "/products/bulk",
    tags=["products"],
    summary="Delete many products",
    auth=write,
    **describe_delete_many(PRODUCT_BULK),
)
@bulk
async def delete_products(request: HttpRequest) -> HttpResponse:
    """Deletes all products or none. The items are ids."""
    return await PRODUCT_BULK.delete(request)


@router.get("/categories", tags=["categories"], summary="A page of categories", **describe_list(CATEGORIES))
@cached(CATEGORIES, fresh=10, stale=60)
async def list_categories(request: HttpRequest) -> HttpResponse:
    """Categories, sorted by slug."""
    return await CATEGORIES.respond(request)


CategoryId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The category's id.", example=1)]


@router.get(
    "/categories/{id:category_id}",
    tags=["categories"],
    summary="One category",
    **describe_item(CATEGORY.listing),
)
@cached(CATEGORY, fresh=10, stale=60)
async def get_category(request: HttpRequest, category_id: CategoryId) -> HttpResponse:
    """The category and its newest 20 products; /products?category=SLUG has all."""
    return await CATEGORY.respond(request, category_id)
