"""Endpoints that use the ORM as ever, without a listing."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from django.db.models import Prefetch
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query, Router

from tests.shop.models import Order, OrderLine, Product
from tests.shop.schemas import LineInOrder

router = Router()


@router.get("/sync", auth=None, include_in_schema=False, response=list[LineInOrder])
def plain_sync(request: HttpRequest, order: Annotated[int, Query(description="Its id.")]) -> Any:
    """The ORM in a thread of the request's own, as Django runs a sync view."""
    lines = OrderLine.objects.filter(order=order).select_related("product__category").order_by("position")
    return [*lines.iterator(chunk_size=2)]


@router.get("/async", auth=None, include_in_schema=False, response=list[LineInOrder])
async def plain_async(request: HttpRequest, order: Annotated[int, Query(description="Its id.")]) -> Any:
    """The same by the ORM's async methods."""
    lines = OrderLine.objects.select_related("product__category").order_by("position")
    found = await Order.objects.prefetch_related(Prefetch("lines", lines)).aget(pk=order)
    return [*found.lines.all()]


@router.get("/stream", auth=None, include_in_schema=False)
async def plain_stream(request: HttpRequest) -> StreamingHttpResponse:
    """All products, of which the worker has a thousand at a time."""

    async def lines() -> AsyncIterator[bytes]:
        products = Product.objects.order_by("id").values("id", "low_price")
        async for product in products.aiterator(chunk_size=1000):
            yield b'{"id":%d,"low_price":"%s"}\n' % (product["id"], str(product["low_price"]).encode())

    return StreamingHttpResponse(lines(), content_type="application/x-ndjson")
