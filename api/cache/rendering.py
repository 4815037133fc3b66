"""Runs the application for an answer that will be everybody's."""

import asyncio
from dataclasses import dataclass, field

from ops.asgi.protocol import Application, Fields, Message, Receive, Scope
from ops.instruments.stopwatch import MIDDLEWARE, current

MOST_BODY = 1024 * 1024  # bytes of an answer that is stored; 1,000 products take 165 kB

# Fields that the cache sets itself, or that belong to one connection.
OWN = frozenset((b"age", b"cache-control", b"connection", b"content-length", b"date", b"etag", b"vary"))


class Unstorable(Exception):
    """The answer is streamed or too large to be held in memory."""


@dataclass(slots=True)
class Answer:
    """What the application answered, whole."""

    status: int = 0
    fields: Fields = field(default_factory=list)
    body: bytes = b""

    @property
    def is_everybodys(self) -> bool:
        """Whether it may be sent to others than who asked for it."""
        for name, value in self.fields:
            if name == b"set-cookie" or (name == b"vary" and value.lower() != b"accept-encoding"):
                return False
            if name == b"cache-control" and (b"no-store" in value.lower() or b"private" in value.lower()):
                return False
        return True

    @property
    def is_storable(self) -> bool:
        coded = any(name == b"content-encoding" for name, _ in self.fields)
        return self.status == 200 and self.is_everybodys and not coded  # noqa: PLR2004

    def kept(self) -> Fields:
        """The fields that belong to the content."""
        return [pair for pair in self.fields if pair[0] not in OWN]


async def render(application: Application, scope: Scope) -> Answer:
    """The answer to a GET of the scope's path and query, by nobody in particular.

    The application sees neither header fields nor the client's address: what it could make of them would end up in
    everybody's answer. Raises Unstorable, or what the application raised.
    """
    answer = Answer()
    parts: list[bytes] = []
    is_unstorable = False

    async def send(message: Message) -> None:
        nonlocal is_unstorable
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.fields = [(name.lower(), value) for name, value in message.get("headers", [])]
            length = next((int(value) for name, value in answer.fields if name == b"content-length"), None)
            if length is None or length > MOST_BODY:
                is_unstorable = True
                raise asyncio.CancelledError  # what ends an answer whose client has left: all is closed in order
        else:
            parts.append(message.get("body", b""))

    if watch := current.get():
        watch.rebase(MIDDLEWARE)
    try:
        await application({**scope, "method": "GET", "headers": [], "client": None}, _nothing(), send)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not is_unstorable or (task and task.cancelling()):
            raise
    if is_unstorable:
        raise Unstorable
    answer.body = b"".join(parts)
    return answer


def _nothing() -> Receive:
    """A request without content whose client never leaves."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()
        sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive
