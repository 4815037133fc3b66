"""Takes the scheme of a request from X-Forwarded-Proto, set by a trusted proxy that speaks TLS with the client.

`request.is_secure()`, absolute links, cookies and the fields of ops/asgi/security.py depend on the scheme. The field
counts only from a peer in settings.TRUSTED_PROXIES, and only if there is exactly one, which says `https` or `http`:
the parts of a list may be of different authors.
"""

from collections.abc import Awaitable

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi.clients import trusted_in
from ops.asgi.hits import Hit, pure
from ops.asgi.types import Application, Fields, Receive, Scope, Send

SCHEMES = {b"http": "http", b"https": "https"}


class ForwardedProto:
    """Sets the scheme of an HTTP request from a trusted proxy that names it in one valid X-Forwarded-Proto."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._is_trusted = trusted_in(settings.TRUSTED_PROXIES)

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and (
            said := self._forwarded_scheme(scope["headers"], scope.get("client"))
        ):
            scope = {**scope, "scheme": said}
        return self.application(scope, receive, send)

    @pure
    def admits(self, hit: Hit) -> bool:
        hit.scheme = self._forwarded_scheme(hit.headers, hit.client) or hit.scheme
        return True

    def _forwarded_scheme(self, headers: Fields, client: tuple[str, int] | None) -> str:
        """Return the scheme that a trusted proxy names; empty if none does, or not in exactly one valid field."""
        if not client or not self._is_trusted(client[0]):
            return ""
        said = [value for name, value in headers if name == b"x-forwarded-proto"]
        return SCHEMES.get(said[0], "") if len(said) == 1 else ""
