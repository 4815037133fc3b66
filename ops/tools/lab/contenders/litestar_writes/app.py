"""`litestar_asyncpg` with writes: msgspec checks the body as it decodes it, and a guard checks the API key.

msgspec has no bounds for decimals, so `__post_init__` checks them. In a PATCH, fields that the body lacks are UNSET.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import asyncpg
from litestar import Litestar, MediaType, Request, Response, delete, patch, post, put
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.handlers import BaseRouteHandler
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from ops.tools.lab.contenders.litestar_asyncpg.app import ProductDetail, database, get_product, list_products
from ops.tools.lab.contenders.shop import asyncpg_writes
from ops.tools.lab.contenders.shop.asyncpg_writes import UnknownCategory
from ops.tools.lab.contenders.shop.keys import client_of

MOST = Decimal("99999.99")
Quantity = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Slug = Annotated[str, Meta(min_length=1, max_length=50)]
Moment = Annotated[datetime, Meta(tz=True)]


class Priced(Struct):
    def __post_init__(self) -> None:
        for price in (self.low_price, self.high_price):
            if price is not UNSET and not (abs(price) <= MOST and price == round(price, 2)):
                raise ValueError("a price has up to 5 digits and 2 decimal places")


class ProductReplacement(Priced):
    low_price: Decimal
    high_price: Decimal
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: Moment
    category: Slug | None


class ProductCreation(Priced):
    low_price: Decimal
    high_price: Decimal
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: Moment | None = None
    category: Slug | None = None


class ProductPatch(Priced):
    low_price: Decimal | UnsetType = UNSET
    high_price: Decimal | UnsetType = UNSET
    demand_qty: Quantity | UnsetType = UNSET
    offers_qty: Quantity | UnsetType = UNSET
    bought_qty: Quantity | UnsetType = UNSET
    sold_qty: Quantity | UnsetType = UNSET
    time_created: Moment | UnsetType = UNSET
    category: Slug | UnsetType | None = UNSET


def has_key(connection: ASGIConnection, _handler: BaseRouteHandler) -> None:
    if client_of(connection.headers.get("X-API-Key", "")) is None:
        raise NotAuthorizedException


async def changed(state: State, product_id: int, values: dict[str, Any]) -> ProductDetail:
    row = await asyncpg_writes.change(state.pool, product_id, values)
    if row is None:
        raise NotFoundException
    return ProductDetail(*row)


@post("/api/products", guards=[has_key])
async def create_product(state: State, data: ProductCreation) -> ProductDetail:
    return ProductDetail(*await asyncpg_writes.create(state.pool, asdict(data)))


@patch("/api/products/{product_id:int}", guards=[has_key])
async def change_product(state: State, product_id: int, data: ProductPatch) -> ProductDetail:
    values = {name: value for name, value in asdict(data).items() if value is not UNSET}
    return await changed(state, product_id, values)


@put("/api/products/{product_id:int}", guards=[has_key])
async def replace_product(state: State, product_id: int, data: ProductReplacement) -> ProductDetail:
    return await changed(state, product_id, asdict(data))


@delete("/api/products/{product_id:int}", guards=[has_key])
async def delete_product(state: State, product_id: int) -> None:
    if not await asyncpg_writes.delete(state.pool, product_id):
        raise NotFoundException


def unprocessable(_request: Request, error: Exception) -> Response:
    return Response(
        {"detail": f"{type(error).__name__}: {error}"}, status_code=422, media_type=MediaType.JSON
    )


REFUSED = {UnknownCategory: unprocessable, asyncpg.IntegrityConstraintViolationError: unprocessable}

app = Litestar(
    [list_products, get_product, create_product, change_product, replace_product, delete_product],
    lifespan=[database],
    exception_handlers=REFUSED,
)
