"""`fastapi_asyncpg` with writes, as in "Security" and "Body - Updates" of FastAPI's documentation.

Pydantic checks the body, and a dependency checks the API key. PATCH changes the fields that the body has.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from pydantic import AwareDatetime, BaseModel, Field

from ops.tools.lab.contenders.fastapi_asyncpg import app as reads
from ops.tools.lab.contenders.fastapi_asyncpg.app import ProductDetail, lifespan
from ops.tools.lab.contenders.shop.asyncpg_writes import UnknownCategory, change, create, delete
from ops.tools.lab.contenders.shop.keys import client_of

Price = Annotated[Decimal, Field(max_digits=7, decimal_places=2)]
Quantity = Annotated[int, Field(ge=0, le=2**31 - 1)]
Slug = Annotated[str, Field(min_length=1, max_length=50)]
header = APIKeyHeader(name="X-API-Key")


class ProductReplacement(BaseModel):
    low_price: Price
    high_price: Price
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: AwareDatetime
    category: Slug | None


class ProductCreation(ProductReplacement):
    time_created: AwareDatetime | None = None
    category: Slug | None = None


class ProductPatch(BaseModel):
    low_price: Price = None
    high_price: Price = None
    demand_qty: Quantity = None
    offers_qty: Quantity = None
    bought_qty: Quantity = None
    sold_qty: Quantity = None
    time_created: datetime = None
    category: Slug | None = None


async def check_key(key: Annotated[str, Security(header)]) -> None:
    if client_of(key) is None:
        raise HTTPException(401)


writes = APIRouter(prefix="/api/products", dependencies=[Depends(check_key)])


@writes.post("", response_model=ProductDetail, status_code=201)
async def create_product(request: Request, product: ProductCreation):
    return dict(await create(request.app.state.pool, product.model_dump()))


@writes.patch("/{product_id}", response_model=ProductDetail)
async def change_product(request: Request, product_id: int, product: ProductPatch):
    row = await change(request.app.state.pool, product_id, product.model_dump(exclude_unset=True))
    if row is None:
        raise HTTPException(404)
    return dict(row)


@writes.put("/{product_id}", response_model=ProductDetail)
async def replace_product(request: Request, product_id: int, product: ProductReplacement):
    row = await change(request.app.state.pool, product_id, product.model_dump())
    if row is None:
        raise HTTPException(404)
    return dict(row)


@writes.delete("/{product_id}", status_code=204)
async def delete_product(request: Request, product_id: int) -> None:
    if not await delete(request.app.state.pool, product_id):
        raise HTTPException(404)


def unprocessable(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": f"{type(error).__name__}: {error}"}, 422)


REFUSED = {UnknownCategory: unprocessable, asyncpg.IntegrityConstraintViolationError: unprocessable}

app = FastAPI(lifespan=lifespan, exception_handlers=REFUSED)
app.get("/api/products", response_model=reads.Page)(reads.list_products)
app.get("/api/products/{product_id}", response_model=ProductDetail)(reads.get_product)
app.include_router(writes)
