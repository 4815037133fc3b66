"""The scheme by which a client has asked, where a proxy in front speaks TLS and says so in X-Forwarded-Proto.

`request.is_secure()`, absolute links, cookies and the fields of ops/asgi/security.py go by it. It counts if the peer
is one of settings.TRUSTED_PROXIES, and if it is `https` or `http`, once: of a list nobody knows who wrote which part.
"""

from collections.abc import Awaitable

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi.clients import trusted_in
from ops.asgi.hits import Hit, pure
from ops.asgi.types import Application, Fields, Receive, Scope, Send

SCHEMES = {b"http": "http", b"https": "https"}


class ForwardedProto:
    """Sets the scheme of each request that comes from a trusted proxy."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._is_trusted = trusted_in(settings.TRUSTED_PROXIES)

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and (said := self._said(scope["headers"], scope.get("client"))):
            scope = {**scope, "scheme": said}
        return self.application(scope, receive, send)

    @pure
    def admits(self, hit: Hit) -> bool:
        hit.scheme = self._said(hit.headers, hit.client) or hit.scheme
        return True

    def _said(self, headers: Fields, client: tuple[str, int] | None) -> str:
        """The scheme that a trusted proxy names; empty if none does."""
        if not client or not self._is_trusted(client[0]):
            return ""
        said = [value for name, value in headers if name == b"x-forwarded-proto"]
        return SCHEMES.get(said[0], "") if len(said) == 1 else ""
