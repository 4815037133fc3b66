"""The outgoing connections of an event loop."""

import asyncio
from collections.abc import Iterator

import pytest

from ops.http.client import Client, clients, open_connections


@pytest.fixture
def client(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """As a worker has them. Nothing of it is left afterwards."""
    monkeypatch.setattr("ops.http.client.PROBE_SECONDS", 0.01)
    opened = open_connections()
    runner.run(opened.__aenter__())
    yield clients[runner.get_loop()]
    runner.run(opened.__aexit__(None, None, None))

    async def left() -> int:
        return len(asyncio.all_tasks()) - 1

    assert runner.run(left()) == 0
