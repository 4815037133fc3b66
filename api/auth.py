"""One line protects an endpoint: `@router.post("/orders", auth=scope("orders:write"))`.

The credential comes in `Authorization: Bearer` or in `X-API-Key`. The function that settings.AUTHENTICATE names
makes an `Identity` of it: the default takes API keys (api/keys), and docs/auth.md has one for the JWTs of an OpenID
provider. The endpoint finds the identity in `request.auth`.

    request                         | answer
    --------------------------------+-----------------------------------------------------------------
    has no valid credential         | 401 unauthenticated: a missing, malformed, wrong, expired or
                                    | revoked credential is the same to the client
    has one without the scopes      | 403 insufficient_scope
    has one that cannot be looked   | 503 database_unavailable
    up, since the database is away  |
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

# The key in the scope of a request that a layer has authenticated (api/limits.py). Its value is an Authenticated.
IDENTITY = "identity"
# Seconds for which an endpoint relies on a layer's result. A client may take longer to send its content, and its key
# may be revoked meanwhile.
HANDED_ON_SECONDS = 0.5

# all that endpoints ask for: `manage.py apikey` warns of a scope that is not among them
SCOPES: set[str] = set()


@dataclass(frozen=True, slots=True)
class Identity:
    """A client that has proved its name, and the scopes that it was given."""

    name: str
    scopes: frozenset[str] = frozenset()


class Authenticated(NamedTuple):
    """The result for a credential, None if it is not valid, or the error; and its time, on the monotonic clock."""

    result: Identity | Exception | None
    time: float


# A function from a credential of up to MAX_CREDENTIAL_CHARACTERS to its identity, or to None if the credential is not
# valid. It lets errors of the database pass.
Authenticate = Callable[[str], Awaitable[Identity | None]]
authenticator: Callable[[str], Authenticate] = cache(import_string)


def scope(*names: str) -> "Scope":
    """Return the `auth` of an endpoint, a router or an Api: it takes a credential that has all scopes in `names`.

    Without names, any valid credential will do. Raises ImproperlyConfigured for a name that is no scope-token of
    RFC 6749.
    """
    return Scope(*names)


class Scope:
    """A Ninja authenticator that asks for scopes. api/ninja.py describes it in the OpenAPI document."""

    openapi_type, openapi_scheme = "http", "bearer"  # for the challenge of a 401

    def __init__(self, *names: str) -> None:
        if wrong := [name for name in names if not SCOPE.fullmatch(name)]:
            raise ImproperlyConfigured(f"{wrong} cannot be scopes (RFC 6749, section 3.3).")
        markcoroutinefunction(self)  # Ninja asks for it at each request: 6 us instead of 16
        self.names = names
        self.scopes = frozenset(names)
        SCOPES.update(names)

    async def __call__(self, request: HttpRequest) -> Identity | None:
        """Return the request's identity; None without a valid credential. Raises Problem 403 if it lacks a scope."""
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
    """Return the credential's identity, or None if it is not valid, by the function in settings.AUTHENTICATE."""
    return authenticator(settings.AUTHENTICATE)(credential)


def credential_of(request: HttpRequest) -> str:
    """Return the request's credential; empty if there is none, or if it is too long."""
    return _credential(request.META.get("HTTP_AUTHORIZATION", ""), request.META.get("HTTP_X_API_KEY", ""))


def credential_of_fields(headers: Fields) -> str:
    """Like `credential_of`, from the header fields of ASGI. It joins a field that came twice as Django does."""
    found: dict[bytes, list[str]] = {b"authorization": [], b"x-api-key": []}
    for name, value in headers:
        if name in found:
            found[name].append(value.decode("latin-1"))
    return _credential(*map(",".join, found.values()))


def _credential(authorization: str, api_key: str) -> str:
    """Return the bearer token (RFC 6750, section 2.1), or else X-API-Key; empty if that is too long.

    A field that came twice contains a comma, and is no valid credential.
    """
    kind, _, credential = authorization.partition(" ")
    if kind.lower() != "bearer":
        credential = api_key
    credential = credential.strip(" ")
    return credential if len(credential) <= MAX_CREDENTIAL_CHARACTERS else ""


def scopes_of(authenticators: Sequence[Any]) -> list[Scope]:
    """Return those of an operation's authenticators that are made by `scope(...)`."""
    return [one for one in authenticators if isinstance(one, Scope)]
