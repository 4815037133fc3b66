"""Adds the prefix under which clients reach the service, if a proxy takes it off before it passes a request on.

ASGI's name for the prefix is `root_path`: links, redirects and the documentation's addresses begin with it, and
`path_info` takes it off again where routes are looked up. If a proxy leaves the prefix on, it is not added again.
"""

import re
from collections.abc import Awaitable

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi.clients import trusted_in
from ops.asgi.hits import Hit, pure
from ops.asgi.types import Application, Fields, Receive, Scope, Send

# No part is only dots, since a client would remove it, and for `..` the part before it, too (RFC 3986, 5.2.4).
PREFIX = re.compile(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)+")
MAX_PREFIX_BYTES = 200


def path_info(scope: Scope) -> str:
    """Return the request's path without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


class RootPath:
    """Sets the prefix of each HTTP request: a trusted proxy's X-Forwarded-Prefix, else settings.ROOT_PATH."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._root_path: str = settings.ROOT_PATH
        self._is_trusted = trusted_in(settings.TRUSTED_PROXIES)

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            prefix = self._prefix(scope["headers"], scope.get("client"))
            if prefix and not scope.get("root_path"):  # some servers add it themselves
                path: str = scope["path"]
                path = path if path.startswith(prefix + "/") else prefix + path
                scope = {**scope, "root_path": prefix, "path": path}
        return self.application(scope, receive, send)

    @pure
    def admits(self, hit: Hit) -> bool:
        """Whether the request's prefix is settings.ROOT_PATH, with which the links of ready answers begin."""
        return self._prefix(hit.headers, hit.client) == self._root_path

    def _prefix(self, headers: Fields, client: tuple[str, int] | None) -> str:
        """Return X-Forwarded-Prefix, if a trusted proxy sent one well-formed path, else ROOT_PATH. Empty for `/`."""
        said = [value for name, value in headers if name == b"x-forwarded-prefix"]
        if len(said) != 1 or len(said[0]) > MAX_PREFIX_BYTES or not client or not self._is_trusted(client[0]):
            return self._root_path
        prefix = said[0].decode("latin-1").rstrip("/")
        return prefix if not prefix or PREFIX.fullmatch(prefix) else self._root_path
