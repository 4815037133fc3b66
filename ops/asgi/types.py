"""The types of an ASGI application (asgi.readthedocs.io, version 3).

Servers and wrappers know version 3 by a `__call__` that is a coroutine function. A layer that only
returns the awaitable of another, which saves a frame in every request, is marked as one
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

# In the scope of a request with a shared answer: the page cache sets its Cache-Control.
SHARED = "shared"
# In the state of the scope of a request that the HTTP edge has refused within its content: the answer's status.
REFUSED = "refused"


def scheme_of(scope: Scope) -> str:
    """`https` or `http`, by which the request came to the service or to the proxy in front."""
    return "https" if scope.get("scheme") == "https" else "http"
