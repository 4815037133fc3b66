"""Which Host headers are let through."""

import pytest
from pytest_django import Settings

from ops.asgi.hosts import _is_allowed, are_allowed


@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:80", b"localhost."])
def test_ours(host: bytes) -> None:
    assert are_allowed([(b"accept", b"*/*"), (b"host", host)])


@pytest.mark.parametrize(
    "hosts", [[], [b""], [b"other.invalid"], [b"localhost", b"localhost"], [b"a@localhost"]]
)
def test_others(hosts: list[bytes]) -> None:
    assert not are_allowed([(b"host", host) for host in hosts])


def test_what_is_too_long_is_not_remembered(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    remembered = _is_allowed.cache_info().currsize
    assert not are_allowed([(b"host", b"x" * 1_000_000)])
    assert _is_allowed.cache_info().currsize == remembered
