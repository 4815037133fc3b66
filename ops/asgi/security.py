"""The header fields that tell a browser what it may do with an answer: settings.SECURITY_HEADERS, on every answer.

Strict-Transport-Security is among them where the request came by https (RFC 6797, section 7.2), as the server says or
a trusted proxy does (ops/asgi/forwarded.py). An answer that has such a field itself keeps its own, and a 304
has none: the answer that it confirms has them already.

The layer stands around all that answer. So that it costs a request half a microsecond, the lines are made once, and
written behind the others (ops/asgi/answering.py). Hits on the wire have them from `defaults` (ops/asgi/hits.py).
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
    """A `send` that adds to the answer the fields that it lacks."""

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
        """Both messages at once."""
        return send_answer(self._send, status, fields, body, self._defaults)
