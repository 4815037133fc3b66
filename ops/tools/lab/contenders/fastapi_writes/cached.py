"""`fastapi_writes` with cache-aside, written by hand as in redis-py's guides: a product is kept for 200 ms.

The kept bytes are sent as the answer. A write deletes the key.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from redis.asyncio import Redis

from ops.tools.lab.contenders.fastapi_asyncpg.app import DETAIL, Page, ProductDetail, lifespan, list_products
from ops.tools.lab.contenders.fastapi_writes import app as uncached
from ops.tools.lab.contenders.fastapi_writes.app import (
    REFUSED,
    ProductPatch,
    ProductReplacement,
    check_key,
    create_product,
)

LIFE = 200  # milliseconds
PREFIX = os.environ["CACHE_PREFIX"]


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    async with lifespan(app), Redis.from_url(os.environ["REDIS_URL"]) as app.state.redis:
        yield


writes = APIRouter(prefix="/api/products", dependencies=[Depends(check_key)])
writes.post("", response_model=ProductDetail, status_code=201)(create_product)


@writes.patch("/{product_id}", response_model=ProductDetail)
async def change_product(request: Request, product_id: int, product: ProductPatch):
    row = await uncached.change_product(request, product_id, product)
    await request.app.state.redis.delete(f"{PREFIX}{product_id}")
    return row


@writes.put("/{product_id}", response_model=ProductDetail)
async def replace_product(request: Request, product_id: int, product: ProductReplacement):
    row = await uncached.replace_product(request, product_id, product)
    await request.app.state.redis.delete(f"{PREFIX}{product_id}")
    return row


@writes.delete("/{product_id}", status_code=204)
async def delete_product(request: Request, product_id: int) -> None:
    await uncached.delete_product(request, product_id)
    await request.app.state.redis.delete(f"{PREFIX}{product_id}")


app = FastAPI(lifespan=connected, exception_handlers=REFUSED)
app.get("/api/products", response_model=Page)(list_products)
app.include_router(writes)


@app.get("/api/products/{product_id}", response_model=ProductDetail)
async def get_product(request: Request, product_id: int):
    redis, key = request.app.state.redis, f"{PREFIX}{product_id}"
    body = await redis.get(key)
    if body is None:
        row = await request.app.state.pool.fetchrow(DETAIL, product_id)
        if row is None:
            raise HTTPException(404)
        body = ProductDetail.model_validate(dict(row)).model_dump_json()
        await redis.set(key, body, px=LIFE)
    return Response(body, media_type="application/json")
