"""The wire behind a proxy that speaks TLS: it answers both schemes, each with its own entry."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from django.test import override_settings

from ops.asgi.forwarded import ForwardedProto
from ops.asgi.types import Application
from tests.ops.gunicorn.twins import Twins, plain, twins

SECURE = b"GET /page/list HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n\r\n"
PLAIN = b"GET /page/list HTTP/1.1\r\nHost: localhost\r\n\r\n"
HSTS = b"strict-transport-security: max-age=60\r\n"
WIRE, MEMORY = {("hit", "wire"): 1}, {("hit", "l1"): 1}


def behind_a_proxy(pages: Application) -> Application:
    return ForwardedProto(plain(pages))


@pytest.fixture
def pair() -> Iterator[Twins]:
    with (
        override_settings(TRUSTED_PROXIES=[ip_network("127.0.0.1")], HSTS_SECONDS=60),
        twins(behind_a_proxy) as pair,
    ):
        yield pair


def test_each_scheme_has_its_hits(pair: Twins) -> None:
    """Of one target, the wire has the entry that it learnt last; the other one is in memory."""
    for request in (SECURE, PLAIN):
        counts = [pair.wire.exchange([request])[1] for _ in range(3)]
        assert counts[2] == WIRE
        assert pair.wire.exchange([request, request])[1] == {("hit", "wire"): 2}  # the second by comparison
    assert pair.wire.exchange([SECURE])[1] == MEMORY
    assert pair.wire.exchange([PLAIN])[1] == WIRE
    for segments in ([SECURE], [PLAIN], [PLAIN, PLAIN, SECURE, SECURE, PLAIN], [SECURE + PLAIN + SECURE]):
        answers, _ = pair.wire.exchange(segments)
        assert answers == pair.layer.exchange(segments)[0]
        assert answers.count(HSTS) == b"".join(segments).count(b"https")
