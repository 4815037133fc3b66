"""A client of the real Valkey, on event loops of both kinds."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest

from ops.redis.client import Client, open_client
from tests.loops import pytest_pyfunc_call, runner

__all__ = ["pytest_pyfunc_call", "runner"]


@pytest.fixture
def client(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """With more patience than a worker's, for a machine that is busy with tests."""
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 5.0)
    opened = open_client()
    yield runner.run(opened.__aenter__())
    runner.run(opened.__aexit__(None, None, None))


@pytest.fixture
def key(runner: asyncio.Runner, client: Client) -> Iterator[str]:
    """Of the test alone, and gone afterwards."""
    key = f"test-{secrets.token_hex(8)}"
    yield key
    runner.run(client.run(("DEL", key)))
