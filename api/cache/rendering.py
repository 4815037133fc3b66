"""Runs the application for an answer that is sent to all clients."""

import asyncio
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import quote

from api.cache.policy import Target
from ops.asgi.stock import WITHOUT_CONTENT
from ops.asgi.types import SHARED, Application, Fields, Message, Scope
from ops.telemetry.stopwatch import MIDDLEWARE, current

MAX_BODY_BYTES = 1024 * 1024  # of an answer that is stored; 1,000 products take 165 kB

# Fields that the cache sets itself, or that belong to one connection.
UNSTORED_FIELDS = frozenset(
    (b"age", b"cache-control", b"connection", b"content-length", b"date", b"etag", b"vary")
)

# With these statuses, the answer may depend on a header field that the canonical request lacks: credentials, a
# tenant, a client to be counted. A redirect may lead to a login.
UNIDENTIFIED = frozenset((
    HTTPStatus.FOUND, HTTPStatus.SEE_OTHER, HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PRECONDITION_REQUIRED, HTTPStatus.TOO_MANY_REQUESTS,
))  # fmt: skip


class Unstorable(Exception):
    """The answer cannot be stored; the message is the reason."""


@dataclass(slots=True)
class Answer:
    """A whole answer of the application."""

    status: int = 0
    fields: Fields = field(default_factory=list)
    body: bytes = b""

    @property
    def obstacle(self) -> str:
        """Why no client may get this answer, so that the endpoint answers each client itself; empty if all may.

        Cache-Control and Content-Encoding matter for a 200 only: no other answer is stored.
        """
        if self.status in UNIDENTIFIED:
            return f"without header fields it is {self.status}"
        for name, value in self.fields:
            text = value.decode("latin-1")
            if name == b"set-cookie":
                return "it sets a cookie"
            if name == b"vary" and text.lower() != "accept-encoding":
                return f"it has Vary: {text}"
            if self.status != HTTPStatus.OK:
                continue
            if name == b"cache-control" and ("no-store" in text.lower() or "private" in text.lower()):
                return f"it has Cache-Control: {text}"
            if name == b"content-encoding":
                return f"it has Content-Encoding: {text}"
        return ""

    def kept(self) -> Fields:
        """Return the fields that are stored with the content."""
        return [pair for pair in self.fields if pair[0] not in UNSTORED_FIELDS]


async def render(application: Application, target: Target) -> Answer:
    """Return the application's answer to the canonical request.

    The application sees neither header fields nor the client's address nor the target as it was sent: all clients get
    its answer. Raises Unstorable, or an error of the application.
    """
    path = target.root_path + target.path
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": target.scheme,
        "root_path": target.root_path,
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": target.query.encode(),
        "headers": [],
        "client": None,
        "server": None,
        SHARED: True,
    }
    answer = Answer()
    parts: list[bytes] = []
    obstacle = ""

    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:  # never returns, since no client can leave
            await asyncio.get_running_loop().create_future()
        is_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal obstacle
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.fields = [(name.lower(), value) for name, value in message.get("headers", [])]
            none = 0 if answer.status in WITHOUT_CONTENT else -1
            length = next((int(value) for name, value in answer.fields if name == b"content-length"), none)
            if not 0 <= length <= MAX_BODY_BYTES:
                obstacle = "it is streamed" if length < 0 else f"it is larger than {MAX_BODY_BYTES} bytes"
                raise asyncio.CancelledError  # as if the client had left: the handler closes everything in order
        else:
            parts.append(message.get("body", b""))

    if watch := current.get():
        watch.rebase(MIDDLEWARE)
    try:
        await application(scope, receive, send)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if not obstacle or (task and task.cancelling()):
            raise
    if obstacle:
        raise Unstorable(obstacle)
    answer.body = b"".join(parts)
    return answer
