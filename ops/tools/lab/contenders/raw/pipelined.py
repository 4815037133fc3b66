"""`raw` on one connection in libpq's pipeline mode, which the statements of all requests share.

It has raw's ASGI function and queries, with a Sync after each statement. It is only there to show the gain of
pipelining: neither a failed statement nor a lost connection is handled.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from ops.tools.lab.contenders.raw.app import DETAIL, LIST, Message

DEPTH = 16  # statements under way
DETAIL_SQL = DETAIL.replace("p.id = %s", "p.id = $1").replace("%%", "%")

connection: "psycopg.Connection"
places: asyncio.Semaphore
names: dict[str, bytes] = {}  # of the prepared statements
# the results to come, in order; None for a result that no request waits for
expected: "deque[asyncio.Future[PGresult] | None]" = deque()


def open_connection() -> None:
    global connection, places  # noqa: PLW0603  the process has one
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, options="-c TimeZone=UTC")
    places = asyncio.Semaphore(DEPTH)
    connection.pgconn.nonblocking = 1
    connection.pgconn.enter_pipeline_mode()
    asyncio.get_running_loop().add_reader(connection.fileno(), take_results)


def take_results() -> None:
    """Read from the connection, and give each complete result to the request that waits for it."""
    libpq = connection.pgconn
    libpq.consume_input()
    while expected and not libpq.is_busy():
        result = libpq.get_result()
        if result and (future := expected.popleft()) and result.status == ExecStatus.TUPLES_OK:
            future.set_result(result)


async def read(sql: str, *values: bytes) -> PGresult:
    """Send a statement, which is prepared at first, and return its result."""
    libpq = connection.pgconn
    async with places:
        if sql not in names:
            names[sql] = b"q%d" % len(names)
            libpq.send_prepare(names[sql], sql.encode())
            expected.append(None)
        future: asyncio.Future[PGresult] = asyncio.get_running_loop().create_future()
        libpq.send_query_prepared(names[sql], values)
        libpq.pipeline_sync()
        expected.extend((future, None))
        return await future


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        open_connection()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        connection.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, body = 404, b"{}"
    path: str = scope["path"]
    if path == "/api/products":
        query: bytes = scope["query_string"]
        limit = int(query[6:]) if query.startswith(b"limit=") else 100
        page = await read(LIST.format(limit + 1))
        rows = page.get_value(0, 0) or b""
        if int(page.get_value(0, 1) or 0) > limit:
            rows = rows[: rows.rindex(b',{"id":')]
        status, body = 200, b'{"next":null,"previous":null,"results":[%b]}' % rows
    elif path.startswith("/api/products/"):
        found = await read(DETAIL_SQL, b"%d" % int(path[14:]))
        if found.ntuples:
            status, body = 200, found.get_value(0, 0) or b""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
