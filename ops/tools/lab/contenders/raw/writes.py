"""The limit of writes: `raw` with sub10's statements, and with its validation by Pydantic in one step from the bytes.

A statement is an INSERT, UPDATE or DELETE in a CTE, around which Postgres joins the category and writes the JSON. As
in sub10, one UPDATE is for all choices of fields: otherwise, each choice would have a statement to prepare.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any

import psycopg
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ops.tools.lab.contenders.raw import app as reads
from ops.tools.lab.contenders.raw.app import Message, lifespan, pool
from ops.tools.lab.contenders.shop.keys import client_of

ROW = """
    SELECT format('{"id":%%s,"low_price":"%%s","high_price":"%%s","demand_qty":%%s,"offers_qty":%%s,"bought_qty":%%s,'
                  '"sold_qty":%%s,"time_created":%%s,"category":%%s}',
                  w.id, low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty, to_json(time_created),
                  coalesce(to_json(c.slug)::text, 'null')), w.id::text
    FROM written AS w LEFT JOIN products_category AS c ON c.id = w.category_id
"""
FIELDS = {
    "low_price": "numeric",
    "high_price": "numeric",
    "demand_qty": "int",
    "offers_qty": "int",
    "bought_qty": "int",
    "sold_qty": "int",
    "time_created": "timestamptz",
}
SLUG = "(SELECT id FROM products_category WHERE slug = %(category)s)"
CREATE = f"""
    WITH written AS (
        INSERT INTO products_product ({", ".join(FIELDS)}, category_id)
        SELECT {", ".join(f"%({name})s::{kind}" for name, kind in list(FIELDS.items())[:-1])},
               coalesce(%(time_created)s::timestamptz, now()), {SLUG}
        WHERE %(category)s::text IS NULL OR EXISTS {SLUG}
        RETURNING *)
    {ROW}
"""
SETTING = [
    f"{name} = CASE WHEN %(has_{name})s::bool THEN %({name})s::{kind} ELSE {name} END"
    for name, kind in FIELDS.items()
]
CHANGE = f"""
    WITH written AS (
        UPDATE products_product SET
            {", ".join(SETTING)},
            category_id = CASE WHEN %(has_category)s::bool THEN {SLUG} ELSE category_id END
        WHERE id = %(id)s AND (%(category)s::text IS NULL OR EXISTS {SLUG})
        RETURNING *)
    {ROW}
"""
DELETE = f"""
    WITH written AS (DELETE FROM products_product WHERE id = %(id)s RETURNING *) {ROW}
"""

Price = Annotated[Decimal, Field(max_digits=7, decimal_places=2)]
Quantity = Annotated[int, Field(ge=0, le=2**31 - 1)]
Slug = Annotated[str, Field(min_length=1, max_length=50)]
ABSENT: Any = None  # Pydantic does not validate a default; it does refuse a null in the content


class Replacement(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    low_price: Price
    high_price: Price
    demand_qty: Quantity
    offers_qty: Quantity
    bought_qty: Quantity
    sold_qty: Quantity
    time_created: AwareDatetime
    category: Slug | None


class Creation(Replacement):
    time_created: AwareDatetime = ABSENT
    category: Slug | None = None


class Patch(Creation):
    low_price: Price = ABSENT
    high_price: Price = ABSENT
    demand_qty: Quantity = ABSENT
    offers_qty: Quantity = ABSENT
    bought_qty: Quantity = ABSENT
    sold_qty: Quantity = ABSENT


CREATION, PATCH, REPLACEMENT = TypeAdapter(Creation), TypeAdapter(Patch), TypeAdapter(Replacement)
NONE_GIVEN = {f"has_{name}": False for name in Replacement.model_fields} | dict.fromkeys(
    Replacement.model_fields
)
JSON = (b"content-type", b"application/json")
Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]  # status, content, further headers


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["method"] == "GET":
        await reads.app(scope, receive, send)
    else:
        status, body, headers = await write(scope, receive)
        headers = [JSON, (b"content-length", b"%d" % len(body)), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def write(scope: Message, receive: Callable[[], Awaitable[Message]]) -> Answer:
    key = next((value for name, value in scope["headers"] if name == b"x-api-key"), b"")
    if client_of(key.decode("latin-1")) is None:
        return 401, b"{}", []
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message.get("body", b""), message.get("more_body", False)
    try:
        if scope["method"] == "POST":
            return await create(content)
        return await change(scope["method"], int(scope["path"][14:]), content)
    except ValidationError as error:
        return 422, error.json(include_url=False, include_context=False).encode(), []
    except psycopg.errors.IntegrityError as error:
        return 422, b'{"constraint":"%b"}' % (error.diag.constraint_name or "").encode(), []


async def create(content: bytes) -> Answer:
    row = await run(CREATE, vars(CREATION.validate_json(content)))
    if row is None:
        return 422, b'{"category":"names no row"}', []
    return 201, row[0], [(b"location", b"/api/products/" + row[1])]


async def change(method: str, number: int, content: bytes) -> Answer:
    if method == "DELETE":
        return (204 if await run(DELETE, {"id": number}) else 404), b"", []
    found = (PATCH if method == "PATCH" else REPLACEMENT).validate_json(content)
    given = {name: getattr(found, name) for name in found.model_fields_set}
    row = await run(CHANGE, NONE_GIVEN | given | {f"has_{name}": True for name in given} | {"id": number})
    if row is None:
        return (422 if await run(reads.DETAIL, (number,)) else 404), b"{}", []
    return 200, row[0], []


async def run(query: str, values: Any) -> Any:
    """Return the row that a statement returns, or None."""
    async with pool.connection() as connection:
        cursor = await connection.cursor(binary=True).execute(query, values, prepare=True)
        return await cursor.fetchone()
