"""Answers requests for hosts other than settings.ALLOWED_HOSTS with 400, before Django.

Django checks the Host header only where code asks for it (`request.get_host()`), and nothing in this service does.
"""

from collections.abc import Awaitable, Iterable
from functools import lru_cache

from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.http.request import split_domain_port, validate_host

from ops.asgi.hits import Hit, pure
from ops.asgi.problems import refuse
from ops.asgi.types import Application, Receive, Scope, Send

MAX_HOST_BYTES = 260  # of a Host header; a longer one names no host, and is not to be remembered


class AllowedHosts:
    """Lets a request through if it has exactly one Host header, which names a host of settings.ALLOWED_HOSTS."""

    def __init__(self, application: Application) -> None:
        self.application = application

    @markcoroutinefunction
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and not are_allowed(scope["headers"]):
            return refuse(send, 400, "bad_host", "The Host header names no host of this service.")
        return self.application(scope, receive, send)

    @pure
    def admits(self, hit: Hit) -> bool:
        return are_allowed(hit.headers)


def are_allowed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether these header fields have exactly one Host, and it names a host of settings.ALLOWED_HOSTS."""
    hosts = [value for name, value in headers if name == b"host"]
    return len(hosts) == 1 and len(hosts[0]) <= MAX_HOST_BYTES and _is_allowed(hosts[0])


@lru_cache(maxsize=256)
def _is_allowed(host: bytes) -> bool:
    domain, _port = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
