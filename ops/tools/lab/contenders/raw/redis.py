"""The most that a cache in Redis can answer through ASGI: one function, one GET, no lock, no key or age to make."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from redis.asyncio import Redis

from ops.tools.lab.contenders.raw.constant import BODY, HEADERS

Message = MutableMapping[str, Any]

KEY = os.environ["CACHE_PREFIX"] + "page"
client = Redis.from_url(os.environ["REDIS_URL"])


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await client.set(KEY, BODY, ex=600)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await client.aclose()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = await client.get(KEY)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": body})
