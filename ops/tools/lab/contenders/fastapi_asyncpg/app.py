"""FastAPI with asyncpg and no ORM. Pydantic checks and writes the answer in Rust, as FastAPI recommends."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal

import asyncpg
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

LIST = """
    SELECT id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, time_created
    FROM products_product ORDER BY time_created, id LIMIT $1
"""
DETAIL = """
    SELECT p.id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, time_created,
           c.slug AS category
    FROM products_product AS p LEFT JOIN products_category AS c ON c.id = p.category_id WHERE p.id = $1
"""


class ProductOut(BaseModel):
    id: int
    low_price: Decimal
    high_price: Decimal
    demand_qty: int
    offers_qty: int
    bought_qty: int
    sold_qty: int
    time_created: datetime


class ProductDetail(ProductOut):
    category: str | None


class Page(BaseModel):
    results: list[ProductOut]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/api/products", response_model=Page)
async def list_products(request: Request, limit: int = 100):
    return {"results": [dict(row) for row in await request.app.state.pool.fetch(LIST, limit)]}


@app.get("/api/products/{product_id}", response_model=ProductDetail)
async def get_product(request: Request, product_id: int):
    row = await request.app.state.pool.fetchrow(DETAIL, product_id)
    if row is None:
        raise HTTPException(404)
    return dict(row)
