"""One ASGI function that passes on psycopg's COPY: lines of JSON, written as CSV with a quote that cannot occur."""

import os
from collections.abc import Awaitable, Callable

from psycopg import AsyncConnection

from ops.tools.lab.contenders.raw.app import Message

# The statement that ops/tools/lab/exports.py also gives to psql.
COPY = os.environ["EXPORT_COPY"]
PIECE_BYTES = 64 * 1024


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        for done in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{done}.complete"})
        return
    rows = int(scope["path"].rpartition("/")[2])
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with (
        await AsyncConnection.connect(os.environ["DATABASE_URL"], options="-c TimeZone=UTC") as connection,
        connection.cursor() as cursor,
        cursor.copy(COPY.format(rows)) as copy,
    ):
        piece = bytearray()
        async for line in copy:
            piece += line
            if len(piece) >= PIECE_BYTES:
                await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})
                piece.clear()
    await send({"type": "http.response.body", "body": bytes(piece)})
