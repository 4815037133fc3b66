"""FastAPI and asyncpg: all rows become models of Pydantic, which write the answer."""

from fastapi import Request

from ops.tools.lab.contenders.fastapi_asyncpg.app import ProductOut, app

ROWS = """
    SELECT id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, time_created
    FROM products_product ORDER BY id LIMIT $1
"""


@app.get("/models/{rows}", response_model=list[ProductOut])
async def models(request: Request, rows: int):
    return [dict(row) for row in await request.app.state.pool.fetch(ROWS, rows)]
