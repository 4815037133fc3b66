"""The types of an ASGI application (asgi.readthedocs.io, version 3).

Servers and wrappers recognise version 3 by a `__call__` that is a coroutine function. A `__call__` that only returns
the awaitable of the next layer, which saves a frame in every request, is marked as a coroutine function
(asgiref.sync.markcoroutinefunction).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

Fields = list[tuple[bytes, bytes]]

# In the scope of a request by which the page cache computes an entry: it sets the Cache-Control of the answer.
SHARED = "shared"
# In `scope["state"]`: the status with which the HTTP edge has refused the request before the end of its content.
REFUSED = "refused"


def scheme_of(scope: Scope) -> str:
    """Return `https` or `http`, the scheme by which the request came to the service or to a trusted proxy."""
    return "https" if scope.get("scheme") == "https" else "http"
