"""The types of an ASGI application (asgi.readthedocs.io, version 3), and an answer in one piece."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

Fields = list[tuple[bytes, bytes]]


def answer(send: Send, status: int, fields: Fields, body: bytes) -> Awaitable[None]:
    """A `send` may have a quicker way than two messages: a method `answer`."""
    whole: Callable[[int, Fields, bytes], Awaitable[None]] | None = getattr(send, "answer", None)
    return whole(status, fields, body) if whole else _answer(send, status, fields, body)


async def _answer(send: Send, status: int, fields: Fields, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
