"""Answers requests for other hosts with 400, before Django.

Django checks the Host header only where something asks for it (`request.get_host()`), which a lean stack never does.
"""

from collections.abc import Awaitable, Iterable
from functools import lru_cache

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from ops.asgi.problems import refuse
from ops.asgi.protocol import Application, Receive, Scope, Send

LONGEST = 260  # characters of a Host header: what is longer names no host, and is not to be remembered


class AllowedHosts:
    """Lets requests through that have one Host header, of settings.ALLOWED_HOSTS."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and not are_allowed(scope["headers"]):
            return refuse(send, 400, "bad_host", "The Host header names no host of this service.")
        return self.application(scope, receive, send)


def are_allowed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether these header fields name one host, and it is one of ours."""
    hosts = [value for name, value in headers if name == b"host"]
    return len(hosts) == 1 and len(hosts[0]) <= LONGEST and _is_allowed(hosts[0])


@lru_cache(maxsize=256)
def _is_allowed(host: bytes) -> bool:
    domain, _port = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
