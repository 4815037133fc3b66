"""Refuses a request with content, unread if possible, if its path or method is unknown or the content too large.

Django reads a whole body, into memory and then to disk, before it looks at the path. This layer stands directly
before Django's handler, resolves the route of a request that has content, and lets the content through up to the
view's limit. A client that expects `100 Continue` gets none if its request is refused unread, since a server sends it
at the first receive.

A view with @streamed_body reads its content itself, piece by piece, as it comes: the handler, lean or stock, sees a
request without content, and the layer counts the bytes that the view reads.
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
# Seconds for which further content of a refused request is read and thrown away. A socket that is closed with unread
# data is reset, and the reset may overtake the answer; a client that reads while it writes needs one round trip.
LINGER_SECONDS = 2.0
# Seconds for the handler to cancel the view of a client that has left. Both handlers do it at once.
LEFT_SECONDS = 5.0
STREAM = "stream"  # in a scope: the Stream of content that the view reads itself


def body_limit(limit: int) -> Callable[[View], View]:
    """Let a view take content of up to `limit` bytes, not settings.BODY_LIMIT. Goes below the route, like @cached.

    Django keeps content beyond FILE_UPLOAD_MAX_MEMORY_SIZE on disk. `request.body` and form fields are read into
    memory as a whole, up to DATA_UPLOAD_MAX_MEMORY_SIZE; uploaded files may be as large as the limit.
    """

    def mark(view: View) -> View:
        view.body_limit = limit  # type: ignore[attr-defined]
        return view

    return mark


def streamed_body(view: View) -> View:
    """Let a view read its content: `async for piece in stream_of(request)`. Goes below the route, like @cached.

    The content is neither kept nor read ahead: the client waits for the view. Without a @body_limit, the limit is
    settings.IMPORT_LIMIT. `request.body` is empty.
    """
    view.streamed_body = True  # type: ignore[attr-defined]
    return view


def streams(view: Callable[..., Any]) -> bool:
    """Whether the view reads its content itself."""
    return getattr(view, "streamed_body", False)


def limit_of(view: Callable[..., Any]) -> int:
    """Return the most bytes of content that a view takes."""
    limit: int = getattr(view, "body_limit", settings.IMPORT_LIMIT if streams(view) else settings.BODY_LIMIT)
    return limit


class BodyLimit:
    """The layer. A view may have an attribute `body_limits`: its methods, each with its limit in bytes.

    Its attribute `streamed_bodies` then names the methods that read their content themselves.
    """

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            if scope["http_version"] >= "2":  # there, no field needs to announce content
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
    """A problem that answers a request before its content was read to the end."""

    def __init__(self, status: int, code: str, detail: str, *fields: tuple[bytes, bytes]) -> None:
        super().__init__(detail)
        self.problem = status, code, detail
        self.fields = fields


def _too_large(limit: int) -> Refused:
    return Refused(413, "content_too_large", f"The content of this request may have {limit} bytes.")


def _unread(scope: Scope, receive: Receive, send: Send) -> Send:
    """Return a `send` for an answer before the end of the content, after which the server closes the connection.

    It sends the whole answer, drops further content for LINGER_SECONDS at most, and only then ends the answer.
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

    Until the content has ended, only the view receives from the server, and the handler, which listens for the
    client's leaving, hears of it from this object. After the end, the handler receives from the server.

    | the content    | a piece                      | then                                                    |
    | -------------- | ---------------------------- | ------------------------------------------------------- |
    | is to come     | comes                        | the view gets it; with the last one the content ends    |
    |                | exceeds the limit            | Refused 413                                             |
    |                | does not come in time        | Refused 408                                             |
    |                | never comes: the client left | the handler hears of that, and cancels the view         |
    | has ended      |                              | the handler hears when the client leaves                |
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._size = 0
        # Whether the handler counts the view as work (ops/asgi/admission.py), except while `__aiter__` waits.
        self.is_counted = False
        self._is_announced = self._has_left = False
        self._ended = asyncio.Event()  # the last piece has come, or the client has left

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces. Raises Refused for too many bytes and for a client that is silent for too long.

        Raises RequestAborted LEFT_SECONDS after the client has left, unless the handler cancels the view before.
        """
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
        """The handler's `receive`: empty content first, then a disconnect when the client leaves."""
        if not self._is_announced:
            self._is_announced = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._ended.wait()
        return {"type": "http.disconnect"} if self._has_left else await self._receive()

    def sender(self, scope: Scope, send: Send) -> Send:
        """Return the handler's `send`. An answer that begins before the end of the content closes the connection."""
        chosen: Send | None = None

        async def send_answer(message: Message) -> None:
            nonlocal chosen
            chosen = chosen or (send if self._ended.is_set() else _unread(scope, self._receive, send))
            await chosen(message)

        return send_answer


async def stream_of(request: HttpRequest) -> AsyncIterator[bytes]:
    """Yield a request's content in pieces, for a view with @streamed_body.

    Without a Stream of the layer (for a request without content, or of Django's test client), `request.body` is the
    only piece. Raises Refused, which the handler answers with its status, and RequestAborted if the client leaves.
    """
    stream: Stream | None = getattr(request, "scope", {}).get(STREAM)
    if stream:
        async for piece in stream:
            yield piece
    elif request.body:
        yield request.body


def _limit_of_request(scope: Scope, method: str) -> tuple[int, bool]:
    """Return the most bytes of content that the view of a request takes, and whether the view reads them itself.

    Raises Refused for an unknown path or method.
    """
    try:
        match = routes.match_of(scope, path_info(scope))
    except Resolver404:
        if settings.MIDDLEWARE:  # a middleware may answer by itself, or choose another URLconf
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
