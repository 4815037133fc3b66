"""The most that uvicorn can answer through ASGI: one function sends one constant, and looks nothing up.

The head has as many header fields as a hit of the service's page cache, and they are as long.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import blake2b
from typing import Any

from ops.tools.lab.contenders.raw.page import page

Message = MutableMapping[str, Any]

BODY = page(100)
NEXT = "/api/products?sort=time_created&limit=100&cursor=" + 128 * "c"
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
    (b"cache-control", b"public, max-age=10, stale-while-revalidate=60, stale-if-error=60"),
    (b"etag", b'"%b"' % blake2b(BODY, digest_size=16).hexdigest().encode()),
    (b"vary", b"accept-encoding"),
    (b"age", b"5"),
    (b"cache-status", b"raw; hit; ttl=5"),
    (b"link", f'<{NEXT}>; rel="next"'.encode()),
]


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        for _ in ("startup", "shutdown"):
            await send({"type": (await receive())["type"] + ".complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})
