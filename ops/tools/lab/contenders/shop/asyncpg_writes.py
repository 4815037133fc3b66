"""Writes of products by asyncpg, for the frameworks that come without an ORM.

Each write is one statement. If it creates or changes a row, it finds the category by its slug, and returns the row.
"""

from typing import Any

from asyncpg import Pool, Record

COLUMNS = "low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, time_created"
ANSWER = f"""
    SELECT w.id, {COLUMNS}, c.slug AS category
    FROM written AS w LEFT JOIN products_category AS c ON c.id = w.category_id
"""
CREATE = f"""
    WITH written AS (
        INSERT INTO products_product ({COLUMNS}, category_id)
        SELECT $1::numeric, $2::numeric, $3::int, $4::int, $5::int, $6::int, coalesce($7::timestamptz, now()),
               (SELECT id FROM products_category WHERE slug = $8::text)
        WHERE $8 IS NULL OR EXISTS (SELECT FROM products_category WHERE slug = $8)
        RETURNING *)
    {ANSWER}
"""
CHANGE = (
    """
    WITH written AS (
        UPDATE products_product SET {}
        WHERE id = $1 AND ($2::text IS NULL OR EXISTS (SELECT FROM products_category WHERE slug = $2))
        RETURNING *)
    """
    + ANSWER
)
CATEGORY = "category_id = (SELECT id FROM products_category WHERE slug = $2)"


class UnknownCategory(Exception):
    pass


async def create(pool: Pool, values: dict[str, Any]) -> Record:
    """Create a product, and return its row. Raises UnknownCategory if no category has the slug."""
    row = await pool.fetchrow(
        CREATE,
        values["low_price"],
        values["high_price"],
        values["demand_qty"],
        values["offers_qty"],
        values["bought_qty"],
        values["sold_qty"],
        values["time_created"],
        values["category"],
    )
    if row is None:
        raise UnknownCategory
    return row


async def change(pool: Pool, product_id: int, values: dict[str, Any]) -> Record | None:
    """Change a product, and return its row, or None if there is no such product. Raises UnknownCategory."""
    columns = [name for name in values if name != "category"]
    setting = [f"{name} = ${number}" for number, name in enumerate(columns, 3)]
    setting += [CATEGORY] if "category" in values else []
    sql = CHANGE.format(", ".join(setting or ["id = id"]))
    row = await pool.fetchrow(sql, product_id, values.get("category"), *(values[name] for name in columns))
    if row is None and await pool.fetchval("SELECT 1 FROM products_product WHERE id = $1", product_id):
        raise UnknownCategory
    return row


async def delete(pool: Pool, product_id: int) -> bool:
    """Delete a product, and return whether there was one."""
    return await pool.execute("DELETE FROM products_product WHERE id = $1", product_id) == "DELETE 1"
