"""CORS for browsers' cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol).

The layer stands outside of the page cache: a stored answer is shared, and the layer adds the fields for one origin.
It does not allow cookies and other credentials that a browser sends by itself: a key goes into a header.
"""

import re
from collections.abc import Awaitable

from asgiref.sync import markcoroutinefunction
from django.conf import settings

from ops.asgi.answering import Adding, send_answer
from ops.asgi.hits import Hit, always
from ops.asgi.problems import refuse
from ops.asgi.types import Application, Fields, Receive, Scope, Send

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED = (
    b"Age, Cache-Status, ETag, Idempotency-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, "
    b"Server-Timing, WWW-Authenticate, X-Request-Duration, X-Request-ID"
)
MAX_AGE_SECONDS = b"7200"  # for a browser to keep a preflight's answer: the most that Chromium allows
VARY = (b"vary", b"origin")
# Names of header fields, between commas. All that a preflight asks for are allowed, since none of them is a
# credential that a browser adds by itself.
FIELD_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1024}")


class Cors:
    """Lets pages of settings.CORS_ORIGINS read answers; `*` means pages of any origin."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self._is_open = "*" in settings.CORS_ORIGINS
        self._origins = frozenset(origin.encode() for origin in settings.CORS_ORIGINS)
        self._lines: dict[bytes | None, bytes] = {
            origin: b"".join(b"%b: %b\r\n" % field for field in self._permit(origin))
            for origin in (None, *self._origins)
        }

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self.application(scope, receive, send)
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        permitted = self._permit(origin)
        if not (scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in headers):
            return self.application(scope, receive, Adding(send, permitted).send)
        # A preflight.
        if permitted == [VARY]:
            return refuse(send, 403, "origin_not_allowed", "CORS_ORIGINS does not have this origin.", [VARY])
        fields = [
            *permitted[:1],
            (b"access-control-allow-methods", METHODS),
            (b"access-control-max-age", MAX_AGE_SECONDS),
            (b"vary", b"origin, access-control-request-headers"),
        ]
        names = headers.get(b"access-control-request-headers", b"")
        if FIELD_NAMES.fullmatch(names):
            fields.append((b"access-control-allow-headers", names))
        return send_answer(send, 204, fields, b"")

    admits = always

    field_names = frozenset((b"access-control-allow-origin", b"access-control-expose-headers", b"vary"))

    def fields(self, hit: Hit) -> bytes:
        origin = None if self._is_open else next((v for n, v in hit.headers if n == b"origin"), None)
        return self._lines.get(origin, self._lines[None])

    def _permit(self, origin: bytes | None) -> Fields:
        """Return the CORS fields of an answer to a page of this origin: only Vary if it is not permitted."""
        if self._is_open:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED)]
        if origin not in self._origins:
            return [VARY]
        return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED), VARY]
