"""`raw` with its writes and cache-aside of a product: a GET of Redis, or else Postgres and a SET for 200 ms.

A write deletes the key after its commit. A read that has the old row from before the commit may still set it later.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis

from ops.tools.lab.contenders.raw import writes
from ops.tools.lab.contenders.raw.app import DETAIL, Message

LIFE = 200  # milliseconds
PREFIX = os.environ["CACHE_PREFIX"]
client = Redis.from_url(os.environ["REDIS_URL"])


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    path: str = scope.get("path", "")
    if not path.startswith("/api/products/"):
        await writes.app(scope, receive, send)
        return
    key = PREFIX + path
    body: Any
    if scope["method"] != "GET":
        status, body, headers = await writes.write(scope, receive)
        await client.delete(key)
    else:
        headers, status, body = [], 200, await client.get(key)
        if body is None:
            row = await writes.run(DETAIL, (int(path[14:]),))
            if row:
                body = row[0]
                await client.set(key, body, px=LIFE)
            else:
                status, body = 404, b"{}"
    headers = [writes.JSON, (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
