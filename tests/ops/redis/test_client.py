"""The client: what it asks, how long it waits, what it leaves behind."""

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as configured
from pytest_django import Settings

from ops.redis.breaker import FAILURES
from ops.redis.client import CONNECTIONS, PATIENCE, Client, Unavailable, open_client


@pytest.fixture
def silent(settings: Settings, tmp_path: Path) -> Iterator[socket.socket]:
    """In Redis's place, what accepts and never answers: a frozen process, whose system still takes connections."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen(100)
        listener.settimeout(0)
        settings.REDIS_URL = f"unix://{tmp_path / 'silent'}?db=0"
        yield listener


async def test_values_in_their_order(client: Client, key: str) -> None:
    await client.run(("SET", key, b"\x00\xff", "EX", 60))
    assert await client.read(["nobody's", key, "nobody's"]) == [None, b"\x00\xff", None]


async def test_another_type_is_no_value(client: Client, key: str) -> None:
    await client.run(("RPUSH", key, "a", "b"))
    assert await client.read([key]) == [None]


async def test_an_error_is_a_reply(client: Client, key: str) -> None:
    pushed, refused, said = await client.run(("RPUSH", key, "a"), ("GET", key), ("ECHO", "after"))
    assert (pushed, said) == (1, b"after")
    assert isinstance(refused, redis.ResponseError)
    assert client.breaker.failures.total() == 0


async def test_who_is_slow_is_not_waited_for(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.redis.client.PATIENCE", PATIENCE)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await client.run(("BLPOP", key, 10))
    assert PATIENCE / 2 < time.monotonic() - began < 10 * PATIENCE
    assert client.breaker.failures.total() == 1


async def test_a_cancelled_command_leaves_no_reply_to_the_next(client: Client, key: str) -> None:
    for number in range(2 * CONNECTIONS):
        command = asyncio.create_task(client.run(("BLPOP", key, 10)))
        await asyncio.sleep(0)
        command.cancel()
        with pytest.raises(asyncio.CancelledError):
            await command
        await client.run(("RPUSH", key, "for who was cancelled"))
        assert await client.run(("ECHO", f"{number}")) == [b"%d" % number]
        await client.run(("DEL", key))


async def test_more_commands_than_connections(client: Client) -> None:
    replies = await asyncio.gather(*(client.run(("ECHO", f"{number}")) for number in range(200)))
    assert replies == [[b"%d" % number] for number in range(200)]
    assert len(client._redis.connection_pool._available_connections) <= CONNECTIONS


async def test_who_waits_for_a_connection_is_no_failure(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is well, and all connections are lent: to a worker that asks for more at once than it can send."""
    monkeypatch.setattr("ops.redis.client.LONGER_PATIENCE", 0.05)
    lent = [asyncio.create_task(client.run(("BLPOP", key, 10))) for _ in range(CONNECTIONS)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="busy"):
        await client.read([key])
    assert client.breaker.failures.total() == 0
    assert await client.insist(("RPUSH", key, *range(CONNECTIONS))) == [
        CONNECTIONS
    ]  # what nobody waits for has its own
    await asyncio.gather(*lent)
    assert await client.read([key]) == [None]


async def test_nobody_waits_while_the_breaker_is_open(runner: asyncio.Runner, silent: socket.socket) -> None:
    async with open_client() as client:
        for _ in range(FAILURES):
            with pytest.raises(Unavailable):
                await client.read(["key"])
        assert client.breaker.is_open
        for _ in range(FAILURES):
            silent.accept()[0].close()
        began = time.monotonic()
        for _ in range(1000):
            with pytest.raises(Unavailable):
                await client.read(["key"])
            with pytest.raises(Unavailable):
                await client.run(("GET", "key"))
        assert time.monotonic() - began < 10 * PATIENCE  # for two thousand, on a busy machine
        with pytest.raises(BlockingIOError):
            silent.accept()  # nobody has tried


async def test_a_server_that_is_gone(runner: asyncio.Runner, settings: Settings, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path / 'nobody'}?db=0"
    async with open_client() as client:
        with pytest.raises(Unavailable):
            await client.run(("PING",))
        with pytest.raises(Unavailable):
            await client.read(["key"])
        assert client.breaker.failures.total() == 2


async def test_connections_end_with_the_client(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.redis.client.PATIENCE", 5.0)
    async with open_client() as client:
        ids = [reply for (reply,) in await asyncio.gather(*(client.run(("CLIENT", "ID")) for _ in range(8)))]
        async with client.subscription("a channel"):
            pass
    with pytest.raises(Unavailable):  # who comes late opens no other
        await client.run(("PING",))
    assert not client._redis.connection_pool._in_use_connections
    with redis.Redis.from_url(configured.REDIS_URL) as other:
        assert other.client_list(client_id=ids) == []


async def test_subscription(client: Client, key: str) -> None:
    async with client.subscription(key) as channel:
        confirmed = await channel.get_message(timeout=10)
        assert confirmed["type"] == "subscribe"
        await client.run(("PUBLISH", key, b"changed"))
        message = await channel.get_message(timeout=10)
        assert (message["type"], message["data"]) == ("message", b"changed")
