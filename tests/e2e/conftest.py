"""The service with its instruments of development and without, on one database."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from re import sub

import httpx
import pytest

from tests import spare
from tests.service import serve

ROWS = 1000


@pytest.fixture(scope="package")
def database() -> Iterator[spare.Database]:
    """A database with Silk's tables and some products."""
    with spare.create(f"test_instruments_{os.getpid()}") as database:
        for command in (["migrate"], ["seed_shop", "--rows", str(ROWS)]):
            done = database.manage(*command, PROFILE="silk")
            assert done.returncode == 0, done.stderr
        yield database


@pytest.fixture(scope="package")
def start(
    database: spare.Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., httpx.Client]]:
    """Start the service with some variables, until the end of the session."""
    with ExitStack() as stack:

        def start(**variables: str) -> httpx.Client:
            directory = tmp_path_factory.mktemp("service")
            return stack.enter_context(serve({"DATABASE_URL": database.url, **variables}, directory)).client

        yield start


@pytest.fixture(scope="package")
def plain(start: Callable[..., httpx.Client]) -> httpx.Client:
    return start()


@pytest.fixture(scope="package")
def silk(start: Callable[..., httpx.Client]) -> httpx.Client:
    return start(PROFILE="silk")


@pytest.fixture(scope="package")
def toolbar(start: Callable[..., httpx.Client]) -> httpx.Client:
    return start(DEBUG="true")


def text(page: str) -> str:
    """What a page shows, with one blank wherever it has any."""
    return " ".join(unescape(sub("<[^>]*>", "", page)).split())
