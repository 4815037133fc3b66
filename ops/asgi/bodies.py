"""Refuses a request's content for an unknown path, a method that the route lacks, or its size; unread where it can.

Django reads a whole body, into memory and then to disk, before it looks at the path. This layer stands directly
before Django's handler, resolves the route of a request that has content, and lets the content through as far as the
view's limit. A client that expects `100 Continue` gets none for a refused request, since a server sends it at the
first receive.

The content of a view with @streamed_body is the view's to read, piece by piece, as it comes: the handler, whichever
it is, sees a request without content, and the layer counts what the view reads.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import RequestAborted
from django.http import HttpRequest
from django.urls import Resolver404

from ops.asgi import routes
from ops.asgi.admission import admission
from ops.asgi.problems import not_allowed, refuse
from ops.asgi.root_path import path_info
from ops.asgi.types import Application, Message, Receive, Scope, Send
from ops.telemetry.stopwatch import current

View = TypeVar("View", bound=Callable[..., Any])

CONTENT = frozenset((b"content-length", b"transfer-encoding"))
# Seconds for which the content of a refused request is read on and thrown away. A socket that is closed with unread
# data is reset, and a reset may overtake the answer; a client that reads while it writes needs one round trip.
LINGER_SECONDS = 2.0
# Seconds in which the handler ends a request whose client has left. Django's own and the lean one do it at once.
LEFT_SECONDS = 5.0
STREAM = "stream"  # in the scope of a request whose content is its view's to read


def body_limit(limit: int) -> Callable[[View], View]:
    """Take content of up to `limit` bytes, in place of settings.BODY_LIMIT. Beside @cached, below the route.

    Django keeps content beyond FILE_UPLOAD_MAX_MEMORY_SIZE on disk. `request.body` and form fields are read into
    memory as a whole, up to DATA_UPLOAD_MAX_MEMORY_SIZE; uploaded files may be as large as the limit.
    """

    def mark(view: View) -> View:
        view.body_limit = limit  # type: ignore[attr-defined]
        return view

    return mark


def streamed_body(view: View) -> View:
    """Leave the content to the view: `async for piece in stream_of(request)`. Beside @body_limit, below the route.

    It is neither kept nor read ahead: the client waits for the view. Without a @body_limit it may have
    settings.IMPORT_LIMIT. `request.body` is empty.
    """
    view.streamed_body = True  # type: ignore[attr-defined]
    return view


def streams(view: Callable[..., Any]) -> bool:
    """Whether the view reads its content itself."""
    return getattr(view, "streamed_body", False)


def limit_of(view: Callable[..., Any]) -> int:
    """The bytes of content that a view takes at most."""
    limit: int = getattr(view, "body_limit", settings.IMPORT_LIMIT if streams(view) else settings.BODY_LIMIT)
    return limit


class BodyLimit:
    """The layer. A view that knows its methods tells them, with their limits, as its attribute `body_limits`.

    `streamed_bodies` are those methods of it that read their content themselves.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            if scope["http_version"] >= "2":  # where no field needs to tell of content
                return self._limit(scope, receive, send)
            for name, value in scope["headers"]:
                if name in CONTENT and value != b"0":
                    return self._limit(scope, receive, send)
        return self.application(scope, receive, send)

    async def _limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                return {"type": "http.disconnect"}  # Django then drops the content that it has read
            # Content of a GET has no meaning (RFC 9110, section 9.3.1).
            return {**message, "body": b""} if method == "GET" else message

        try:
            limit, is_streamed = _limit_of_request(scope, method)
            length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
            announced = int(length[:20]) if length.isdigit() else 0  # twenty digits are beyond any limit
            if announced > limit:
                raise _too_large(limit)
            if is_streamed:
                stream = Stream(receive, limit)
                await self.application({**scope, STREAM: stream}, stream.watch, stream.sender(scope, send))
                return
            await self.application(scope, receive_limited, send)
            if size > limit:
                raise _too_large(limit)
        except Refused as refused:
            await refuse(_unread(scope, receive, send), *refused.problem, refused.fields)


class Refused(Exception):
    """The problem that answers a request whose content is not read, or not to its end."""

    def __init__(self, status: int, code: str, detail: str, *fields: tuple[bytes, bytes]) -> None:
        super().__init__(detail)
        self.problem = status, code, detail
        self.fields = fields


def _too_large(limit: int) -> Refused:
    return Refused(413, "content_too_large", f"The content of this request may have {limit} bytes.")


def _unread(scope: Scope, receive: Receive, send: Send) -> Send:
    """A `send` for an answer before the end of the content, after which the server closes the connection.

    It sends the whole answer, reads on for a while, and only then ends it.
    """

    async def send_and_read(message: Message) -> None:
        if message["type"] == "http.response.start":
            close = ((b"connection", b"close"),) if scope["http_version"] < "2" else ()
            await send({**message, "headers": [*message.get("headers", ()), *close]})
            return
        await send({**message, "more_body": True})
        if message.get("more_body"):
            return
        if watch := current.get():
            watch.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})

    return send_and_read


class Stream:
    """The content of one request, which its view reads.

    Only the view takes pieces from the server. The handler, which listens for a client that leaves, hears of it from
    here, and once the content has ended from the server itself.

    | the content    | a piece                      | then                                                    |
    | -------------- | ---------------------------- | ------------------------------------------------------- |
    | is to come     | comes                        | the view gets it; to come, or ended with the last one   |
    |                | is one too many              | Refused 413                                             |
    |                | does not come in time        | Refused 408                                             |
    |                | never comes: the client left | the handler hears of it, and cancels the view           |
    | has ended      |                              | the handler hears when the client leaves                |
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._size = 0
        # Whether its view is counted as work (ops/asgi/admission.py), which it is not while it waits for the client.
        self.is_counted = False
        self._is_announced = self._has_left = False
        self._ended = asyncio.Event()  # the last piece has come, or the client has left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces. Raises Refused for too many bytes and for a client that is silent for too long."""
        seconds: float = settings.STREAM_PATIENCE_SECONDS
        while not self._ended.is_set():
            is_counted = self.is_counted
            admission.active -= is_counted
            try:
                async with asyncio.timeout(seconds):
                    message = await self._receive()
            except TimeoutError:
                detail = f"Nothing more of the content came in {seconds:g} s."
                raise Refused(408, "request_timeout", detail) from None
            finally:
                admission.active += is_counted
            if message["type"] == "http.disconnect":
                self._has_left = True
                self._ended.set()
                await asyncio.sleep(LEFT_SECONDS)
                raise RequestAborted
            if not message.get("more_body"):
                self._ended.set()
            piece: bytes = message.get("body", b"")
            self._size += len(piece)
            if self._size > self._limit:
                raise _too_large(self._limit)
            if piece:
                yield piece

    async def watch(self) -> Message:
        """What the handler receives: empty content, then, if the client leaves, a disconnect."""
        if not self._is_announced:
            self._is_announced = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._ended.wait()
        return {"type": "http.disconnect"} if self._has_left else await self._receive()

    def sender(self, scope: Scope, send: Send) -> Send:
        """The handler's `send`: an answer before the end of the content closes the connection."""
        chosen: Send | None = None

        async def send_answer(message: Message) -> None:
            nonlocal chosen
            chosen = chosen or (send if self._ended.is_set() else _unread(scope, self._receive, send))
            await chosen(message)

        return send_answer


async def stream_of(request: HttpRequest) -> AsyncIterator[bytes]:
    """A request's content, in pieces, for a view with @streamed_body.

    Without a stream from the layer (there is no content, or Django's test client asks) it is `request.body`, in one
    piece. Raises Refused, which the handler answers with its status, and RequestAborted if the client leaves.
    """
    stream: Stream | None = getattr(request, "scope", {}).get(STREAM)
    if stream:
        async for piece in stream:
            yield piece
    elif request.body:
        yield request.body


def _limit_of_request(scope: Scope, method: str) -> tuple[int, bool]:
    """The bytes of content that the view of a request takes, and whether it reads them itself.

    Raises Refused for an unknown path or method.
    """
    try:
        match = routes.match_of(scope, path_info(scope))
    except Resolver404:
        if settings.MIDDLEWARE:  # which may answer by itself, or choose another URL configuration
            return int(settings.BODY_LIMIT), False
        raise Refused(404, "not_found", "There is no such resource.") from None
    limits: Mapping[str, int] | None = getattr(match.func, "body_limits", None)
    if limits is None:
        return limit_of(match.func), streams(match.func) and method != "GET"
    if method not in limits:
        detail, allowed = not_allowed(limits)
        raise Refused(405, "method_not_allowed", detail, (b"allow", allowed.encode()))
    streamed: Collection[str] = getattr(match.func, "streamed_bodies", ())
    return limits[method], method in streamed and method != "GET"
