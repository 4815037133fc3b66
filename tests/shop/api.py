"""The endpoints."""

from typing import Annotated

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Path, Query, Router

from api import (
    bulk,
    cached,
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
    in_transaction,
    rate_class,
    streamed_body,
)
from ops.postgres.transactions import Transaction
from tests.shop.commands import (
    CATEGORY_BULK,
    CATEGORY_WRITES,
    ORDER_LINE_WRITES,
    STRICT_WRITES,
    VOUCHER_BULK,
    VOUCHER_IMPORT,
    VOUCHER_WRITES,
)
from tests.shop.models import Voucher
from tests.shop.queries import (
    CATEGORIES,
    CATEGORY,
    ORDER,
    ORDER_LINE,
    ORDER_LINES,
    ORDERS,
    PRODUCT,
    PRODUCT_EXPORT,
    PRODUCT_STATS,
    PRODUCTS,
    VOUCHER,
    VOUCHER_EXPORT,
    VOUCHERS,
)

router = Router()

ProductId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The product's id.", example=1)]


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
    return await PRODUCT_STATS.respond(request)


@router.get(
    "/products/export", tags=["products"], summary="All products as a file", **describe_export(PRODUCT_EXPORT)
)
async def export_products(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """A stream of any length, of one moment. Rows come in no particular order unless `sort` names one."""
    return await PRODUCT_EXPORT.respond(request)


@router.get("/products/{id:product_id}", tags=["products"], summary="One product", **describe_item(PRODUCTS))
@cached(PRODUCT, fresh=10, stale=60)
async def get_product(request: HttpRequest, product_id: ProductId) -> HttpResponse:
    """All its fields unless `fields` names some."""
    return await PRODUCT.respond(request, product_id)


@router.get("/categories", tags=["categories"], summary="A page of categories", **describe_list(CATEGORIES))
@cached(CATEGORIES, fresh=10, stale=60)
async def list_categories(request: HttpRequest) -> HttpResponse:
    """Sorted by their slug."""
    return await CATEGORIES.respond(request)


CategoryId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The category's id.", example=1)]
VoucherId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The voucher's id.", example=1)]


@router.get("/categories/{id:category_id}", summary="One category", **describe_item(CATEGORIES))
@cached(CATEGORY, fresh=10, stale=60)
async def get_category(request: HttpRequest, category_id: CategoryId) -> HttpResponse:
    return await CATEGORY.respond(request, category_id)


@router.patch("/categories/{id:category_id}", auth=None, summary="Change", **describe_change(CATEGORY_WRITES))
async def change_category(request: HttpRequest, category_id: CategoryId) -> HttpResponse:
    return await CATEGORY_WRITES.change(request, category_id)


@router.delete(
    "/categories/{id:category_id}", auth=None, summary="Delete", **describe_delete(CATEGORY_WRITES)
)
async def delete_category(request: HttpRequest, category_id: CategoryId) -> HttpResponse:
    return await CATEGORY_WRITES.delete(request, category_id)


@router.get("/vouchers", summary="A page of vouchers", **describe_list(VOUCHERS))
@cached(VOUCHERS, fresh=10, stale=60)
async def list_vouchers(request: HttpRequest) -> HttpResponse:
    return await VOUCHERS.respond(request)


@router.get("/vouchers/export", summary="All vouchers as a file", **describe_export(VOUCHER_EXPORT))
async def export_vouchers(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    return await VOUCHER_EXPORT.respond(request)


@router.post("/vouchers", auth=None, summary="Create a voucher", **describe_create(VOUCHER_WRITES))
@idempotent
async def create_voucher(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_WRITES.create(request)


@router.post("/vouchers/import", auth=None, summary="Create vouchers", **describe_import(VOUCHER_IMPORT))
@rate_class("bulk")
@streamed_body
async def import_vouchers(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_IMPORT.respond(request)


@router.get("/vouchers/{id:voucher_id}", summary="One voucher", **describe_item(VOUCHERS))
@cached(VOUCHER, fresh=10, stale=60)
async def get_voucher(request: HttpRequest, voucher_id: VoucherId) -> HttpResponse:
    return await VOUCHER.respond(request, voucher_id)


@router.patch("/vouchers/{id:voucher_id}", auth=None, summary="Change", **describe_change(VOUCHER_WRITES))
async def change_voucher(request: HttpRequest, voucher_id: VoucherId) -> HttpResponse:
    return await VOUCHER_WRITES.change(request, voucher_id)


@router.put("/vouchers/{id:voucher_id}", auth=None, summary="Replace", **describe_replace(VOUCHER_WRITES))
async def replace_voucher(request: HttpRequest, voucher_id: VoucherId) -> HttpResponse:
    return await VOUCHER_WRITES.replace(request, voucher_id)


@router.delete("/vouchers/{id:voucher_id}", auth=None, summary="Delete", **describe_delete(VOUCHER_WRITES))
async def delete_voucher(request: HttpRequest, voucher_id: VoucherId) -> HttpResponse:
    return await VOUCHER_WRITES.delete(request, voucher_id)


@router.post("/vouchers/bulk", auth=None, summary="Create many", **describe_create_many(VOUCHER_BULK))
@bulk
@idempotent
async def create_vouchers(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_BULK.create(request)


@router.patch("/vouchers/bulk", auth=None, summary="Change many", **describe_change_many(VOUCHER_BULK))
@bulk
async def change_vouchers(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_BULK.change(request)


@router.delete("/vouchers/bulk", auth=None, summary="Delete many", **describe_delete_many(VOUCHER_BULK))
@bulk
async def delete_vouchers(request: HttpRequest) -> HttpResponse:
    return await VOUCHER_BULK.delete(request)


@router.delete("/categories/bulk", auth=None, summary="Delete many", **describe_delete_many(CATEGORY_BULK))
@bulk
async def delete_categories(request: HttpRequest) -> HttpResponse:
    return await CATEGORY_BULK.delete(request)


@router.patch(
    "/strict-vouchers/{id:voucher_id}", auth=None, summary="Change", **describe_change(STRICT_WRITES)
)
async def change_strictly(request: HttpRequest, voucher_id: VoucherId) -> HttpResponse:
    return await STRICT_WRITES.change(request, voucher_id)


OrderId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The order's id.", example=1)]
LineId = Annotated[int, Path(ge=1, le=2**63 - 1, description="The line's id.", example=1)]


@router.get("/orders", summary="A page of orders", **describe_list(ORDERS))
@cached(ORDERS, fresh=10, stale=60)
async def list_orders(request: HttpRequest) -> HttpResponse:
    return await ORDERS.respond(request)


@router.get("/orders/{id:order_id}", summary="One order", **describe_item(ORDERS))
@cached(ORDER, fresh=10, stale=60)
async def get_order(request: HttpRequest, order_id: OrderId) -> HttpResponse:
    """With its first lines; all are in /order-lines?order=..."""
    return await ORDER.respond(request, order_id)


@router.get("/order-lines", summary="A page of lines of orders", **describe_list(ORDER_LINES))
@cached(ORDER_LINES, fresh=10, stale=60)
async def list_order_lines(request: HttpRequest) -> HttpResponse:
    return await ORDER_LINES.respond(request)


@router.post("/order-lines", auth=None, summary="Create a line", **describe_create(ORDER_LINE_WRITES))
async def create_order_line(request: HttpRequest) -> HttpResponse:
    return await ORDER_LINE_WRITES.create(request)


@router.get("/order-lines/{id:line_id}", summary="One line", **describe_item(ORDER_LINES))
@cached(ORDER_LINE, fresh=10, stale=60)
async def get_order_line(request: HttpRequest, line_id: LineId) -> HttpResponse:
    return await ORDER_LINE.respond(request, line_id)


@router.patch("/order-lines/{id:line_id}", auth=None, summary="Change", **describe_change(ORDER_LINE_WRITES))
async def change_order_line(request: HttpRequest, line_id: LineId) -> HttpResponse:
    return await ORDER_LINE_WRITES.change(request, line_id)


@router.delete("/order-lines/{id:line_id}", auth=None, summary="Delete", **describe_delete(ORDER_LINE_WRITES))
async def delete_order_line(request: HttpRequest, line_id: LineId) -> HttpResponse:
    return await ORDER_LINE_WRITES.delete(request, line_id)


@router.post("/shelves/{slug}", auth=None, include_in_schema=False, response={204: None})
async def add_shelf(
    request: HttpRequest,
    slug: str,
    codes: Annotated[str, Query(description="Those of its vouchers, separated by commas.")],
) -> HttpResponse:
    """A category with its vouchers, in one transaction."""

    async def add(_tx: Transaction) -> None:
        await CATEGORY_WRITES.insert(slug=slug, name=slug)
        for percent, code in enumerate(codes.split(",")):
            await VOUCHER_WRITES.insert(code=code, percent=percent, category=slug)

    await in_transaction(add)
    return HttpResponse(status=204)


@router.post("/orm-vouchers/{id:voucher_id}", auth=None, include_in_schema=False, response={204: None})
async def use_voucher(
    request: HttpRequest,
    voucher_id: VoucherId,
    uses: Annotated[int, Query(description="The number of uses.")],
    code: Annotated[str, Query(description="The new code.")],
) -> HttpResponse:
    """A write by the ORM: its invalidation and its errors are the commands' own."""
    await Voucher.objects.filter(pk=voucher_id).aupdate(uses=uses, code=code)
    return HttpResponse(status=204)
