"""Answers HEAD as GET without the content (RFC 9110, section 9.3.2); no endpoint has to do anything for it."""

from collections.abc import Awaitable

from asgiref.sync import markcoroutinefunction

from ops.asgi.hits import Hit, pure
from ops.asgi.types import Application, Message, Receive, Scope, Send

HEAD = "head"  # in the scope of a HEAD request, which the layers within see as a GET: its content need not be made


class Head:
    """Answers HEAD requests with the header of the application's answer to GET."""

    def __init__(self, application: Application) -> None:
        self.application = application

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            return self.application({**scope, "method": "GET", HEAD: True}, receive, without_content(send))
        return self.application(scope, receive, send)

    @pure
    def admits(self, hit: Hit) -> bool:
        """Admit every request; the answer to a HEAD is sent without its content."""
        hit.head_only = hit.method == "HEAD"
        return True


def without_content(send: Send) -> Send:
    """Return a `send` that leaves the content out."""

    async def send_head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
