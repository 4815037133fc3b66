"""Adds settings.SECURITY_HEADERS to every answer: header fields that restrict a browser's use of the answer.

If settings.HSTS_SECONDS is set, Strict-Transport-Security is among them for a request that came by https (RFC 6797,
section 7.2), according to the server or to a trusted proxy (ops/asgi/forwarded.py). An answer that has such a field
itself keeps its own. A 304 gets none: the answer that it confirms has them already.

The layer stands around all layers that answer. The lines are made once, and written behind the others
(ops/asgi/answering.py), so that a request costs half a microsecond. Hits on the wire get them from `defaults`
(ops/asgi/hits.py).
"""

from collections.abc import Awaitable

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi.answering import Defaults, send_answer
from ops.asgi.hits import always
from ops.asgi.types import Application, Fields, Message, Receive, Scope, Send, scheme_of


class SecurityHeaders:
    """Adds the fields that an answer lacks."""

    def __init__(self, application: Application) -> None:
        self.application = application
        plain = [(name.lower().encode(), value.encode()) for name, value in settings.SECURITY_HEADERS.items()]
        secure = [*plain]
        if settings.HSTS_SECONDS:
            secure.append((b"strict-transport-security", b"max-age=%d" % settings.HSTS_SECONDS))
        self.defaults = {"http": Defaults(plain), "https": Defaults(secure)}  # by the scheme of the request

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            send = Completing(send, self.defaults[scheme_of(scope)]).send
        return self.application(scope, receive, send)

    admits = always


class Completing:
    """A `send` that adds those of the default fields that the answer lacks."""

    __slots__ = ("_defaults", "_send")

    def __init__(self, send: Send, defaults: Defaults) -> None:
        self._send, self._defaults = send, defaults

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            fields = message.get("headers", ())
            lacking = self._defaults.of(message["status"]).missing(fields)
            message = {**message, "headers": [*fields, *lacking]}
        return self._send(message)

    def send_answer(self, status: int, fields: Fields, body: bytes) -> Awaitable[None]:
        """Send a whole answer in one piece, with the fields that it lacks."""
        return send_answer(self._send, status, fields, body, self._defaults)
