"""Services that trust a proxy on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service import Service, serve

SETTINGS = "tests.e2e.security.settings"


@contextmanager
def behind(proxies: str, directory: Path, **more: str) -> Iterator[Service]:
    """A service with a page cache that trusts these proxies, and asks browsers for https."""
    variables = {
        "DJANGO_SETTINGS_MODULE": SETTINGS,
        "PAGE_CACHE": "on",
        "CACHE_PREFIX": f"{directory.name}-{os.getpid()}",
        "TRUSTED_PROXIES": proxies,
        "HSTS_SECONDS": "3600",
        **more,
    }
    with serve(variables, directory) as service:
        assert service.client.get("/livez").status_code == 200
        yield service


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Trusts this machine."""
    directory = tmp_path_factory.mktemp("trusting")
    with behind("127.0.0.1", directory, CORS_ORIGINS="https://app.example.com") as service:
        yield service


@pytest.fixture(scope="module")
def untrusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Trusts another machine."""
    with behind("192.0.2.1", tmp_path_factory.mktemp("untrusting")) as service:
        yield service
