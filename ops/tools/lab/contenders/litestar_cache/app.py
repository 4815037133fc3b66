"""Litestar's response cache on its RedisStore, as in "Caching" of its documentation."""

import os

from litestar import Litestar, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.datastructures import State
from litestar.stores.redis import RedisStore

from ops.tools.lab.contenders.litestar_asyncpg.app import LIST, Page, Product, database


@get("/api/products", cache=600)
async def list_products(state: State, limit: int = 100) -> Page:
    return Page([Product(*row) for row in await state.pool.fetch(LIST, limit)])


store = RedisStore.with_client(url=os.environ["REDIS_URL"], namespace=os.environ["CACHE_PREFIX"])
app = Litestar(
    [list_products],
    lifespan=[database],
    stores={"redis": store},
    response_cache_config=ResponseCacheConfig(store="redis"),
)
