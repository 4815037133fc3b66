"""The requests of `make lab` about products, and the right answers, which Postgres itself gives."""

import datetime
import json
import random
from collections.abc import Callable
from typing import Any, LiteralString

from ops.tools.lab.contender import SUB10
from ops.tools.lab.contenders.cached import CACHED
from ops.tools.lab.contenders.exporting import COPY, EXPORTING
from ops.tools.lab.contenders.uncached import NESTING, UNCACHED
from ops.tools.lab.contenders.writing import BULK, CRUD, WRITING
from ops.tools.lab.scenarios import CHECKED as WRITTEN
from ops.tools.lab.scenarios import Connection, Disturbance, Question, Request, Row, Scenario, Writing

TABLE = "products_product"
PRODUCT: LiteralString = """
    SELECT p.id, low_price::text, high_price::text, demand_qty, offers_qty, bought_qty, sold_qty, time_created
"""
LISTED: LiteralString = PRODUCT + "FROM products_product AS p ORDER BY time_created, id OFFSET %s LIMIT %s"
FROM: LiteralString = PRODUCT + (
    "FROM products_product AS p WHERE time_created >= %s::timestamptz ORDER BY time_created, id OFFSET 100 LIMIT 100"
)
DETAILED: LiteralString = (
    PRODUCT + ", c.slug AS category FROM products_product AS p"
    " LEFT JOIN products_category AS c ON c.id = p.category_id WHERE p.id = ANY(%s) ORDER BY p.id"
)
NESTED: LiteralString = """
    SELECT id, slug, name, (
        SELECT json_agg(json_build_object('id', id, 'low_price', low_price::text, 'high_price', high_price::text,
                                          'sold_qty', sold_qty) ORDER BY time_created DESC, id DESC)
        FROM (SELECT * FROM products_product AS p WHERE category_id = c.id
              ORDER BY time_created DESC, id DESC LIMIT 20) AS newest) AS newest
    FROM products_category AS c ORDER BY id
"""
DETAILS = 10_000  # different products, so that a cache of one row helps no contender
CHECKED = 50  # products of these with an answer that is compared

# The lab's own rows have a time_created from this moment on. Other products hardly do.
MARK = datetime.datetime(2900, 1, 1, tzinfo=datetime.UTC)
MAKE: LiteralString = """
    INSERT INTO products_product (low_price, high_price, demand_qty, offers_qty, bought_qty, sold_qty,
                                  time_created, category_id)
    SELECT i %% 1000 / 100.0, i %% 1000 / 100.0 + 1, i %% 1000, i %% 200, i %% 100, i %% 50,
           %(mark)s + i * interval '13.37 seconds', ids[1 + i %% cardinality(ids)]
    FROM generate_series(1, %(count)s) AS i, (SELECT array_agg(id) AS ids FROM products_category) AS categories
    RETURNING id
"""
MADE = 50_000  # rows at most, which are changed again and again
BODIES = 10_000  # different contents of requests
LIVES = 200  # requests of a connection in `crud`, on average
GOOD: Row = {
    "low_price": "1.50",
    "high_price": "2.50",
    "demand_qty": 1,
    "offers_qty": 2,
    "bought_qty": 3,
    "sold_qty": 4,
    "time_created": MARK.isoformat(),
    "category": None,
}
FAULTS: tuple[Row, ...] = (
    {"low_price": "cheap"},
    {"low_price": "-100000.00"},
    {"high_price": "2.555"},
    {"demand_qty": -1},
    {"sold_qty": 2**31},
    {"bought_qty": None},
    {"time_created": "tomorrow"},
    {"category": "no-such-category"},
)

EXPORT = "/api/products/export?limit=1000000"
DISTURBANCES = (
    Disturbance(name="an export of 1,000,000 rows", path=EXPORT, clients=1),
    Disturbance(name="the same in zstd", path=EXPORT, clients=1, headers="Accept-Encoding: zstd\r\n"),
    Disturbance(name="a client that reads an export at 1 kB/s", path=EXPORT, clients=1, pace=1024),
    Disturbance(
        name="50 clients that read lists at 1 kB/s", path="/api/products?limit=1000", clients=50, pace=1024
    ),
    Disturbance(
        name="quotes, whose source of rates hangs",
        path="/api/products/1/quote?currency=EUR",
        clients=4,
        environment={"RATES_URL": "{silent}"},
    ),
)


def _listed(limit: int) -> Callable[[Connection], list[Question]]:
    def questions(database: Connection) -> list[Question]:
        rows = database.execute(LISTED, (0, limit)).fetchall()
        return [Question(paths=[f"/api/products?limit={limit}"], answers=[rows])]

    return questions


def _detail(database: Connection) -> list[Question]:
    last = _value(database, "SELECT max(id) AS value FROM products_product")
    drawn = random.Random(1).choices(range(1, last + 1), k=DETAILS)  # noqa: S311
    present = "SELECT array_agg(id) AS value FROM products_product WHERE id = ANY(%s)"
    found = sorted(_value(database, present, (drawn,)))
    random.Random(2).shuffle(found)  # noqa: S311
    rows = {row["id"]: row for row in database.execute(DETAILED, (found[:CHECKED],)).fetchall()}
    return [
        Question(
            paths=[f"/api/products/{product}" for product in found],
            answers=[[rows[product]] for product in found[:CHECKED]],
        )
    ]


def _nested(database: Connection) -> list[Question]:
    rows = database.execute(NESTED).fetchall()
    return [Question(paths=[f"/api/categories/{row['id']}" for row in rows], answers=[[row] for row in rows])]


def _depth(database: Connection) -> list[Question]:
    rows = _value(database, "SELECT count(*) AS value FROM products_product")
    return [_page_from(database, 0), _page_from(database, max(0, min(rows * 99 // 100, rows - 300)))]


def _page_from(database: Connection, row: int) -> Question:
    """Ask for the second 100 rows from the time of `row` on, at a cursor."""
    start = database.execute(LISTED, (row, 1)).fetchall()[0]["time_created"].isoformat()
    return Question(
        paths=[f"/api/products?limit=100&created_after={start.replace('+00:00', 'Z')}"],
        answers=[database.execute(FROM, (start,)).fetchall()],
        about=f"{row:,} rows deep",
        follow=True,
    )


def _posts(database: Connection, count: int) -> list[Request]:
    return [Request("/api/products", "POST", body) for body in _bodies(database, min(count, BODIES))]


def _patches(database: Connection, count: int) -> list[Request]:
    """Changes of a price, which has an index, and of a quantity."""
    changes = [
        json.dumps({"high_price": f"{20 + number / 100:.2f}", "sold_qty": number}) for number in range(1000)
    ]
    return [
        Request(f"/api/products/{product}", "PATCH", changes[number % 1000])
        for number, product in enumerate(_made(database, min(count, MADE)))
    ]


def _deletes(database: Connection, count: int) -> list[Request]:
    return [Request(f"/api/products/{product}", "DELETE") for product in _made(database, count)]


def _crud(database: Connection, count: int) -> list[Request]:
    """Random requests: 75 % GET and 15 % PUT by id, 5 % lists, 5 % POST. About one in LIVES ends its connection."""
    draw = random.Random(3)  # noqa: S311
    products = _made(database, min(count, MADE))
    bodies = _bodies(database, BODIES)

    def one(rows: list[int]) -> Request:
        kind = draw.choices(("GET", "PUT", "list", "POST"), (75, 15, 5, 5))[0]
        path, body = f"/api/products/{draw.choice(rows)}", draw.choice(bodies)
        closes = draw.random() < 1 / LIVES
        if kind == "GET":
            return Request(path, closes=closes)
        if kind == "list":
            return Request("/api/products?limit=10", closes=closes)
        return Request("/api/products" if kind == "POST" else path, kind, body, closes)

    others = min(count - WRITTEN, MADE)
    return [one(products[:WRITTEN]) for _ in range(WRITTEN)] + [
        one(products[WRITTEN:]) for _ in range(others)
    ]


def _mixed(database: Connection, count: int) -> list[Request]:
    """PATCH and POST in turn."""
    pairs = zip(_patches(database, count // 2), _posts(database, count // 2), strict=False)
    return [request for pair in pairs for request in pair]


def _reads(database: Connection) -> list[Request]:
    """A list of 100 and a product by id in turn."""
    (by_id,) = _detail(database)
    return [Request(path) for each in by_id.paths for path in ("/api/products?limit=100", each)]


def _made(database: Connection, count: int) -> list[int]:
    """Make rows; return their ids, shuffled."""
    rows = database.execute(MAKE, {"mark": MARK, "count": count}).fetchall()
    made = [row["id"] for row in rows]
    random.Random(4).shuffle(made)  # noqa: S311
    return made


def _bodies(database: Connection, count: int) -> list[str]:
    draw = random.Random(5)  # noqa: S311
    slugs = [row["slug"] for row in database.execute("SELECT slug FROM products_category").fetchall()]
    bodies = []
    for number in range(count):
        low = draw.randrange(1000)
        created = MARK + datetime.timedelta(seconds=13.37 * number)
        body = GOOD | {
            "low_price": f"{low / 100:.2f}",
            "high_price": f"{(low + draw.randrange(1000)) / 100:.2f}",
            **{name: draw.randrange(100) for name in GOOD if name.endswith("_qty")},
            "time_created": created.isoformat(),
            "category": draw.choice([None, *slugs]),
        }
        bodies.append(json.dumps(body))
    return bodies


def _clear(database: Connection) -> None:
    database.execute("DELETE FROM products_product WHERE time_created >= %s", (MARK,))


def _settle(database: Connection) -> None:
    """Let the next id follow the last one, and remove dead rows."""
    database.execute(
        "SELECT setval(pg_get_serial_sequence('products_product', 'id'), max(id)) FROM products_product"
    )
    database.execute("VACUUM (ANALYZE) products_product")


def _row(database: Connection, product: int) -> Row | None:
    return database.execute(DETAILED, ([product],)).fetchone()


def _writing(make: Callable[[Connection, int], list[Request]], **settings: Any) -> Writing:
    return Writing(
        make=make,
        clear=_clear,
        settle=_settle,
        read=_row,
        refused=tuple(Request("/api/products", "POST", json.dumps(GOOD | fault)) for fault in FAULTS),
        scope="products:write",
        **settings,
    )


def _value(database: Connection, query: LiteralString, parameters: tuple[Any, ...] = ()) -> Any:
    return database.execute(query, parameters).fetchall()[0]["value"]


SCENARIOS = {
    "export": Scenario(
        table=TABLE,
        summary="1,000 to 1,000,000 products by id, as a file",
        questions=_listed(10),
        contenders=tuple({contender.name: contender for _, contender, _ in EXPORTING}.values()),
        exports=EXPORTING,
        copy=COPY,
    ),
    "list100": Scenario(
        table=TABLE, summary="the first 100 products by time", questions=_listed(100), contenders=UNCACHED
    ),
    "list10": Scenario(
        table=TABLE, summary="the first 10 products by time", questions=_listed(10), contenders=UNCACHED
    ),
    "nested": Scenario(
        table=TABLE,
        summary="one category, each in turn, with its newest 20 products",
        questions=_nested,
        contenders=NESTING,
    ),
    "detail": Scenario(
        table=TABLE,
        summary=f"one product, of {DETAILS:,} by chance, with its category",
        questions=_detail,
        contenders=UNCACHED,
        disturbances=DISTURBANCES,
    ),
    "depth": Scenario(
        table=TABLE,
        summary="100 products at a cursor, at the beginning and 99% into the table",
        questions=_depth,
        contenders=(SUB10,),
    ),
    "cached100": Scenario(
        table=TABLE,
        summary="the first 100 products by time, out of a cache",
        questions=_listed(100),
        contenders=CACHED,
    ),
    "post": Scenario(
        table=TABLE,
        summary="one new product",
        questions=_listed(10),
        contenders=WRITING,
        writing=_writing(_posts),
    ),
    "patch": Scenario(
        table=TABLE,
        summary=f"a price and a quantity of one product, of {MADE:,} in a random order",
        questions=_listed(10),
        contenders=WRITING,
        writing=_writing(_patches),
    ),
    "delete": Scenario(
        table=TABLE,
        summary="one product, each once, in a random order",
        questions=_listed(10),
        contenders=WRITING,
        writing=_writing(_deletes, once=True),
    ),
    "crud": Scenario(
        table=TABLE,
        summary=f"75% GET by id of {MADE:,}, 15% PUT, 5% list of 10, 5% POST; {LIVES} requests a connection",
        questions=_listed(10),
        contenders=CRUD,
        writing=_writing(_crud, stale="sold_qty"),
        connections=64,
    ),
    "mixed": Scenario(
        table=TABLE,
        summary="reads (a list of 100, one by id) beside writes (PATCH, POST)",
        questions=_listed(100),
        contenders=WRITING,
        writing=_writing(_mixed, reads=_reads),
    ),
    "bulk": Scenario(
        table=TABLE,
        summary="1,000 products at once",
        questions=_listed(10),
        contenders=BULK,
        writing=_writing(_mixed),
        ways="ops.tools.lab.contenders.bulk",
    ),
}
