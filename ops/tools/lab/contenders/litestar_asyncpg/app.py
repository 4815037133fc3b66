"""Litestar with msgspec structs, its native representation of data, and asyncpg without an ORM."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal

import asyncpg
from litestar import Litestar, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from msgspec import Struct

LIST = """
    SELECT id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, time_created
    FROM products_product ORDER BY time_created, id LIMIT $1
"""
DETAIL = """
    SELECT p.id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, time_created, c.slug
    FROM products_product AS p LEFT JOIN products_category AS c ON c.id = p.category_id WHERE p.id = $1
"""


class Product(Struct):
    id: int
    low_price: Decimal
    high_price: Decimal
    demand_qty: int
    offers_qty: int
    bought_qty: int
    sold_qty: int
    time_created: datetime


class ProductDetail(Product):
    category: str | None


class Page(Struct):
    results: list[Product]


@get("/api/products")
async def list_products(state: State, limit: int = 100) -> Page:
    return Page([Product(*row) for row in await state.pool.fetch(LIST, limit)])


@get("/api/products/{product_id:int}")
async def get_product(state: State, product_id: int) -> ProductDetail:
    row = await state.pool.fetchrow(DETAIL, product_id)
    if row is None:
        raise NotFoundException
    return ProductDetail(*row)


@asynccontextmanager
async def database(app: Litestar) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as app.state.pool:
        yield


app = Litestar([list_products, get_product], lifespan=[database])
