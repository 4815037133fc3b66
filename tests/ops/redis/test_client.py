"""The client: its commands, its timeouts, its connections."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as configured
from pytest_django import Settings

from ops.breaker import MAX_FAILURES
from ops.redis.client import FAILURES, OPEN, TIMEOUT_SECONDS, Client, Unavailable, open_client, sample
from ops.redis.connection import MAX_CALLS, STUCK_SECONDS
from tests.loops import until


@pytest.fixture
def silent(settings: Settings, tmp_path: Path) -> Iterator[socket.socket]:
    """A server that accepts and never answers, as the system does for a frozen process."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen(100)
        listener.settimeout(0)
        settings.REDIS_URL = f"unix://{tmp_path / 'silent'}?db=0"
        yield listener


@pytest.fixture
def other() -> "Iterator[redis.Redis]":
    """Another client of the same server."""
    with redis.Redis.from_url(configured.REDIS_URL) as client:
        yield client


async def test_an_error_is_a_reply(client: Client, key: str) -> None:
    pushed, refused, said = await client.run(("RPUSH", key, "a"), ("GET", key), ("ECHO", "after"))
    assert (pushed, said) == (1, b"after")
    assert isinstance(refused, redis.ResponseError)
    assert client.breaker.failures.total() == 0


async def test_one_command(client: Client, key: str) -> None:
    assert await client.ask("RPUSH", key, b"\x00\xff") == 1
    assert isinstance(await client.ask("GET", key), redis.ResponseError)
    assert await client.ask("LRANGE", key, 0, 9) == [b"\x00\xff"]
    assert client.breaker.failures.total() == 0


async def test_who_is_slow_is_not_waited_for(
    client: Client, other: "redis.Redis", key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", TIMEOUT_SECONDS)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await client.run(("BLPOP", key, 10))
    assert TIMEOUT_SECONDS / 2 < time.monotonic() - began < 10 * TIMEOUT_SECONDS
    assert client.breaker.failures.total() == 1
    other.rpush(key, "go on")


async def test_what_may_take_longer_does_not_excuse_who_is_slow(
    client: Client, other: "redis.Redis", key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a server that takes 100 ms would cost each request of a calm service its 50."""
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 0.02)
    for _ in range(MAX_FAILURES):
        await client.insist(("DEL", key))
        with pytest.raises(Unavailable):
            await client.run(("BLPOP", key, 10))
        other.rpush(key, "go on")
    assert client.breaker.is_open
    await until(lambda: not client.breaker.is_open)


async def test_a_cancelled_command_leaves_no_reply_to_the_next(client: Client) -> None:
    for number in range(32):
        command = asyncio.create_task(client.ask("ECHO", "for who was cancelled"))
        await asyncio.sleep(0)
        command.cancel()
        with pytest.raises(asyncio.CancelledError):
            await command
        assert await client.run(("ECHO", f"{number}")) == [b"%d" % number]


async def test_a_late_reply_is_not_that_of_the_next(
    client: Client, other: "redis.Redis", key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client lets the command go on; the connection is the same."""
    connection = await client.ask("CLIENT", "ID")
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 0.02)
    with pytest.raises(Unavailable):
        await client.ask("BLPOP", key, 10)
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 5.0)
    other.rpush(key, "late")
    assert await client.ask("CLIENT", "ID") == connection


async def test_a_connection_that_is_stuck_is_given_up(
    client: Client, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await client.ask("CLIENT", "ID")
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 0.02)
    with pytest.raises(Unavailable):
        await client.ask("BLPOP", key, 10)
    await until(lambda: client._connection is None, 10 * STUCK_SECONDS)
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 5.0)
    second = await client.insist(("CLIENT", "ID"))
    assert second != [first]


async def test_many_commands_share_a_connection(client: Client) -> None:
    replies = await asyncio.gather(
        *(client.run(("ECHO", f"{number}"), ("CLIENT", "ID")) for number in range(200))
    )
    assert [said for said, _ in replies] == [b"%d" % number for number in range(200)]
    assert len({connection for _, connection in replies}) == 1


async def test_too_many_commands_are_no_failure_of_redis(
    client: Client, other: "redis.Redis", key: str
) -> None:
    """Redis is well, and this worker asks for more than it answers."""
    blocked = asyncio.create_task(client.ask("BLPOP", key, 10))
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(client.ask("ECHO", number)) for number in range(MAX_CALLS)]
    with pytest.raises(Unavailable, match="more commands"):
        await waiting[-1]
    assert client.breaker.failures.total() == 0
    other.rpush(key, "go on")
    await blocked
    assert (await asyncio.gather(*waiting[:-1]))[-1] == b"%d" % (MAX_CALLS - 2)


async def test_a_lost_connection_is_one_failure(client: Client, other: "redis.Redis", key: str) -> None:
    """However many commands wait for it. The next command opens another."""
    first = await client.ask("CLIENT", "ID")
    waiting = [asyncio.create_task(client.ask("BLPOP", key, 10)) for _ in range(20)]
    await asyncio.sleep(0)
    other.client_kill_filter(_id=first)
    for each in waiting:
        with pytest.raises(Unavailable):
            await each
    assert client.breaker.failures == {"connection": 1}
    assert await client.ask("CLIENT", "ID") != first


@pytest.mark.parametrize("sent", [b"+OK\r\n+OK\r\n", b"rubbish\r\n"], ids=["too many", "no reply"])
async def test_who_answers_rubbish_is_left(runner: asyncio.Runner, settings: Settings, sent: bytes) -> None:
    """No reply may come to a command that it does not belong to."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(sent if b"ECHO" in data else b"+OK\r\n" * data.count(b"CLIENT"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        async with open_client() as client:
            with contextlib.suppress(Unavailable):
                await client.ask("ECHO", "a")
            await asyncio.sleep(0.01)
            assert client._connection is None


async def test_nobody_waits_while_the_breaker_is_open(runner: asyncio.Runner, silent: socket.socket) -> None:
    async with open_client() as client:
        for _ in range(MAX_FAILURES):
            with pytest.raises(Unavailable):
                await client.ask("GET", "key")
        assert client.breaker.is_open
        for _ in range(MAX_FAILURES):
            silent.accept()[0].close()
        began = time.monotonic()
        for _ in range(1000):
            with pytest.raises(Unavailable):
                await client.ask("GET", "key")
            with pytest.raises(Unavailable):
                await client.run(("GET", "key"))
        assert time.monotonic() - began < 10 * TIMEOUT_SECONDS  # for two thousand, on a busy machine
        with pytest.raises(BlockingIOError):
            silent.accept()  # no connection was tried


async def test_a_server_that_is_gone(runner: asyncio.Runner, settings: Settings, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path / 'nobody'}?db=0"
    async with open_client() as client:
        with pytest.raises(Unavailable):
            await client.run(("PING",))
        with pytest.raises(Unavailable):
            await client.ask("GET", "key")
        assert client.breaker.failures.total() == 2


async def test_connections_end_with_the_client(
    runner: asyncio.Runner, other: "redis.Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops.redis.client.TIMEOUT_SECONDS", 5.0)
    async with open_client() as client:
        ids = await client.run(("CLIENT", "ID"))
        async with client.subscription("a channel"):
            pass
    with pytest.raises(Unavailable):  # a late call opens no other
        await client.run(("PING",))
    await until(lambda: not other.client_list(client_id=ids))


async def test_subscription(client: Client, key: str) -> None:
    async with client.subscription(key) as channel:
        confirmed = await channel.get_message(timeout=10)
        assert confirmed["type"] == "subscribe"
        await client.run(("PUBLISH", key, b"changed"))
        message = await channel.get_message(timeout=10)
        assert (message["type"], message["data"]) == ("message", b"changed")


async def test_failures_of_each_client_are_told(
    runner: asyncio.Runner, silent: socket.socket, settings: Settings
) -> None:
    """The rate limits' Redis is watched as the page cache's is."""
    sample()
    before = FAILURES.labels("timeout").value
    async with open_client() as client:
        with pytest.raises(Unavailable):
            await client.ask("PING")
        settings.REDIS_URL = configured.REDIS_URL
        async with open_client():
            sample()
            assert (FAILURES.labels("timeout").value, OPEN.value) == (before + 1, 0)
            client.distrust(redis.RedisError("not well"))
            sample()
            assert OPEN.value == 1
    sample()
    assert (FAILURES.labels("timeout").value, OPEN.value) == (before + 1, 0)
