"""One line protects an endpoint: `@router.post("/orders", auth=scope("orders:write"))`.

The credential comes in `Authorization: Bearer` or in `X-API-Key`. The function that settings.AUTHENTICATE names
makes an `Identity` of it: the default takes API keys (api/keys), and docs/auth.md has one for the JWTs of an OpenID
provider. The endpoint finds the identity in `request.auth`.

    request                         | answer
    --------------------------------+-----------------------------------------------------------------
    has no credential, or not one   | 401 unauthenticated; missing, malformed, wrong, expired and
    that is valid                   | revoked ones are the same to the client
    has one without the scopes      | 403 insufficient_scope
    has one that cannot be looked   | 503 database_unavailable
    up, with the database away      |
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any, NamedTuple

from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.module_loading import import_string

from api.problems import Problem
from ops.asgi.types import Fields
from ops.telemetry.stopwatch import AUTH

MAX_CREDENTIAL_CHARACTERS = 4096  # a JWT with a few dozen claims; a longer one is not looked at
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")  # scope-token of RFC 6749, section 3.3

# In the scope of a request that a layer has authenticated (api/limits.py): what it has found, as Authenticated.
IDENTITY = "identity"
# Seconds for which an endpoint takes a layer's result. A client may send its content for longer, and lose its key.
HANDED_ON_SECONDS = 0.5

SCOPES: set[str] = set()  # that endpoints ask for, so that `manage.py apikey` can name a misspelt one


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that has proved its name, and the scopes that it was given."""

    name: str
    scopes: frozenset[str] = frozenset()


class Authenticated(NamedTuple):
    """What came of a credential, or the error, and when, on the monotonic clock."""

    result: Identity | Exception | None
    time: float


# From a credential of up to MAX_CREDENTIAL_CHARACTERS to its identity, or None if it is not valid. Errors of the
# database pass.
Authenticate = Callable[[str], Awaitable[Identity | None]]
authenticator: Callable[[str], Authenticate] = cache(import_string)


def scope(*names: str) -> "Scope":
    """The `auth` of an endpoint, a router or an Api: a credential with all of these scopes, or, without one, any.

    Raises ImproperlyConfigured for a name that is no scope-token of RFC 6749.
    """
    return Scope(*names)


class Scope:
    """A Ninja authenticator. api/ninja.py describes it in the OpenAPI document."""

    openapi_type, openapi_scheme = "http", "bearer"  # for the challenge of a 401

    def __init__(self, *names: str) -> None:
        if wrong := [name for name in names if not SCOPE.fullmatch(name)]:
            raise ImproperlyConfigured(f"{wrong} cannot be scopes (RFC 6749, section 3.3).")
        markcoroutinefunction(self)  # Ninja asks at each request: 6 us instead of 16
        self.names = names
        self.scopes = frozenset(names)
        SCOPES.update(names)

    async def __call__(self, request: HttpRequest) -> Identity | None:
        """Raises Problem 403 if the credential lacks a scope."""
        known: Authenticated | None = getattr(request, "scope", {}).get(IDENTITY)
        identity: Identity | None
        if known and monotonic() < known.time + HANDED_ON_SECONDS:
            if isinstance(known.result, Exception):
                raise known.result
            identity = known.result
        else:
            with AUTH:
                credential = credential_of(request)
                identity = await authenticate(credential) if credential else None
        if identity is not None and not identity.scopes >= self.scopes:
            needed = " ".join(self.names)
            raise Problem(
                403,
                f"The credential is valid, and lacks a scope: this takes {needed}.",
                code="insufficient_scope",
                # RFC 6750, section 3.1
                headers={
                    "WWW-Authenticate": f'Bearer realm="api", error="insufficient_scope", scope="{needed}"'
                },
            )
        return identity


def authenticate(credential: str) -> Awaitable[Identity | None]:
    """The identity of a credential, by the function that settings.AUTHENTICATE names."""
    return authenticator(settings.AUTHENTICATE)(credential)


def credential_of(request: HttpRequest) -> str:
    """The request's credential; empty if there is none, or it is too long."""
    return _credential(request.META.get("HTTP_AUTHORIZATION", ""), request.META.get("HTTP_X_API_KEY", ""))


def bearer_of(headers: Fields) -> str:
    """The same from the header fields of ASGI, where a field that came twice is joined as Django joins it."""
    found: dict[bytes, list[str]] = {b"authorization": [], b"x-api-key": []}
    for name, value in headers:
        if name in found:
            found[name].append(value.decode("latin-1"))
    return _credential(*map(",".join, found.values()))


def _credential(authorization: str, api_key: str) -> str:
    """The bearer token (RFC 6750, section 2.1), else X-API-Key.

    A field that came twice is one with a comma, and no valid credential.
    """
    kind, _, credential = authorization.partition(" ")
    if kind.lower() != "bearer":
        credential = api_key
    credential = credential.strip(" ")
    return credential if len(credential) <= MAX_CREDENTIAL_CHARACTERS else ""


def scopes_of(authenticators: Sequence[Any]) -> list[Scope]:
    """Those of an operation's authenticators that are a `scope(...)`."""
    return [one for one in authenticators if isinstance(one, Scope)]
