"""`litestar_writes` with cache-aside, written by hand as in redis-py's guides: a product is kept for 200 ms.

The kept bytes are sent as the answer. A write deletes the key. (Litestar's own RedisStore counts in whole seconds.)
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from litestar import Litestar, MediaType, Response, delete, get, patch, put
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from msgspec import UNSET
from msgspec.structs import asdict
from redis.asyncio import Redis

from ops.tools.lab.contenders.litestar_asyncpg.app import DETAIL, ProductDetail, database, list_products
from ops.tools.lab.contenders.litestar_writes.app import (
    REFUSED,
    ProductPatch,
    ProductReplacement,
    changed,
    create_product,
    has_key,
)
from ops.tools.lab.contenders.shop import asyncpg_writes

LIFE = 200  # milliseconds
PREFIX = os.environ["CACHE_PREFIX"]
encoder = msgspec.json.Encoder()


@asynccontextmanager
async def redis(app: Litestar) -> AsyncIterator[None]:
    async with Redis.from_url(os.environ["REDIS_URL"]) as app.state.redis:
        yield


@get("/api/products/{product_id:int}")
async def get_product(state: State, product_id: int) -> Response[bytes]:
    key = f"{PREFIX}{product_id}"
    body = await state.redis.get(key)
    if body is None:
        row = await state.pool.fetchrow(DETAIL, product_id)
        if row is None:
            raise NotFoundException
        body = encoder.encode(ProductDetail(*row))
        await state.redis.set(key, body, px=LIFE)
    return Response(body, media_type=MediaType.JSON)


@patch("/api/products/{product_id:int}", guards=[has_key])
async def change_product(state: State, product_id: int, data: ProductPatch) -> ProductDetail:
    values = {name: value for name, value in asdict(data).items() if value is not UNSET}
    product = await changed(state, product_id, values)
    await state.redis.delete(f"{PREFIX}{product_id}")
    return product


@put("/api/products/{product_id:int}", guards=[has_key])
async def replace_product(state: State, product_id: int, data: ProductReplacement) -> ProductDetail:
    product = await changed(state, product_id, asdict(data))
    await state.redis.delete(f"{PREFIX}{product_id}")
    return product


@delete("/api/products/{product_id:int}", guards=[has_key])
async def delete_product(state: State, product_id: int) -> None:
    if not await asyncpg_writes.delete(state.pool, product_id):
        raise NotFoundException
    await state.redis.delete(f"{PREFIX}{product_id}")


app = Litestar(
    [list_products, get_product, create_product, change_product, replace_product, delete_product],
    lifespan=[database, redis],
    exception_handlers=REFUSED,
)
