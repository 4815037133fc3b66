"""A worker's client of Redis. Every wait is bounded, and while Redis is not well no request waits for it at all.

Callers can do without Redis: every failure is raised as `Unavailable`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any, TypeVar, cast

from django.conf import settings
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from ops.breaker import Breaker
from ops.redis.connection import Command, Connection, Full, Lost, take_over
from ops.redis.rights import describe, find_lacking
from ops.tasks import end
from ops.telemetry.metrics import metrics

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 0.05  # for a reply, and for connecting before: a slower one is of no use to a cache
MIN_TURNS = 10  # of the event loop that a time-out takes at least: see connection.TURN_SECONDS
BACKGROUND_TIMEOUT_SECONDS = 0.25  # for commands that no request waits for
CHECK_SECONDS = 0.5  # between two checks that Redis takes writes
# Probes that close the breaker. Three leave time for invalidations that wait to be published before entries are read.
MIN_PROBES = 3
PROBE_SECONDS = 0.25  # between two probes

OPTIONS: dict[str, Any] = {
    "protocol": 2,  # Redis has 3 since 6.0, and nothing here needs it
    "retry": Retry(NoBackoff(), 0),  # redis-py's default is ten retries
    # This module sets one deadline for a whole command. redis-py's time-outs add up, and the one of a write is
    # asyncio.wait_for, which before Python 3.12 can swallow a cancellation.
    "socket_timeout": None,
}

OPEN = metrics.gauge("redis_breaker_open", "1 while Redis is left alone.", over="max").labels()
FAILURES = metrics.counter("redis_failures_total", "Commands that Redis did not do.", "kind")

T = TypeVar("T")


class Unavailable(Exception):
    """Redis failed: it is down, slow or loading, or was not asked because the breaker is open."""


class NotSent(Unavailable):
    """Nothing was sent: Redis has not executed the commands, and will not do so later."""


class Client:
    """Belongs to one event loop."""

    def __init__(self, name: str = "Redis") -> None:
        """`name` stands for the server in the log."""
        self.breaker = Breaker(name, self._probe, probe_seconds=PROBE_SECONDS, min_probes=MIN_PROBES)
        # A further check, by the owner: raises if Redis must not be relied on.
        self.check: Callable[[], Awaitable[None]] | None = None
        # Makes connections to settings.REDIS_URL, and keeps none.
        self._source = ConnectionPool.from_url(
            settings.REDIS_URL, socket_connect_timeout=TIMEOUT_SECONDS, **OPTIONS
        )
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self.lacking: list[str] | None = None  # commands that Redis refuses; None until it was asked
        self._checking = asyncio.get_running_loop().create_task(self._check_regularly())

    async def run(self, *commands: Command) -> list[Any]:
        """Return the replies to `commands`, in one round trip; an error reply is an exception in the list.

        Raises NotSent, or another Unavailable: Redis may then still execute the commands, before any later ones.
        """
        self._refuse_if_open()
        return await self._send(commands, TIMEOUT_SECONDS)

    async def ask(self, *command: str | bytes | int) -> Any:
        """Return the reply to one command, as `run` does. Raises Unavailable."""
        self._refuse_if_open()
        return (await self._send((command,), TIMEOUT_SECONDS))[0]

    async def insist(self, *commands: Command) -> list[Any]:
        """Do the same as `run`, even while the breaker is open: for commands in the background, with more time."""
        return await self._send(commands, BACKGROUND_TIMEOUT_SECONDS)

    def distrust(self, error: Exception) -> None:
        """Open the breaker although Redis answers: its data must not be relied on."""
        self.breaker.open(error)

    @asynccontextmanager
    async def subscription(self, *channels: str) -> AsyncIterator[PubSub]:
        """Subscribe to channels for the block, on a connection of its own. If it breaks, it is not opened again."""
        async with connect(TIMEOUT_SECONDS) as redis, redis.pubsub() as subscribed:
            await _bounded(subscribed.subscribe(*channels), TIMEOUT_SECONDS)
            yield subscribed

    async def close(self) -> None:
        await end(self._checking)
        await self.breaker.close()
        if self._connecting:
            await end(self._connecting)
        self._hang_up()
        await asyncio.sleep(0)  # the turn in which the loop closes the socket

    def _refuse_if_open(self) -> None:
        if self.breaker.is_open:
            raise NotSent("Redis did not answer a moment ago")

    async def _send(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        failure: type[Unavailable] = NotSent
        try:
            connection = self._connection
            if not connection:
                if not self._connecting:  # one connection is opened for all that need it
                    self._connecting = asyncio.get_running_loop().create_task(self._open(), context=Context())
                    self._connecting.add_done_callback(self._connected)
                connection = await asyncio.shield(self._connecting)
            replied = connection.send(commands, seconds)
            failure = Unavailable
            replies = await replied
        except (Full, Lost) as error:  # Full is no failure; _lost counts a loss, once
            raise failure(str(error)) from error
        except (RedisError, OSError) as error:
            self.breaker.failed(error)
            raise failure(str(error)) from error
        if seconds <= TIMEOUT_SECONDS:  # within a request's time; a command with more time proves nothing
            self.breaker.succeeded()
        return replies

    async def _open(self) -> Connection:
        opened = cast("Any", self._source).make_connection()  # without types
        try:
            await _bounded(opened.connect(), TIMEOUT_SECONDS)
        except BaseException:
            await opened.disconnect(nowait=True)  # its socket may be open, and wait for a greeting
            raise
        self._connection = take_over(opened, self._lost)
        return self._connection

    def _connected(self, connecting: "asyncio.Task[Connection]") -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # keeps it out of the log if no caller waits any more

    def _lost(self, connection: Connection, error: Exception) -> None:
        if connection is self._connection:
            self._connection = None
            self.breaker.failed(error)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.fail(Lost("this worker has hung up"))

    async def _check_regularly(self) -> None:
        """Notice that Redis is away or takes no writes, even if the worker does not write.

        A replica, or a server with a full disk, still returns entries that it can no longer invalidate.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self.lacking is None:
                with suppress(RedisError, OSError):  # while Redis is down
                    async with connect(BACKGROUND_TIMEOUT_SECONDS) as redis:
                        self.lacking = await _bounded(find_lacking(redis), BACKGROUND_TIMEOUT_SECONDS)
                    if self.lacking:
                        logger.warning(describe(self.lacking))
            if not self.breaker.is_open:
                try:
                    await self._check_writes()
                except (RedisError, Unavailable) as error:
                    self.distrust(error)

    async def _probe(self) -> None:
        """Raises if the breaker has to stay open."""
        await self._send((("MGET", f"{settings.CACHE_PREFIX}:probe"),), TIMEOUT_SECONDS)
        await self._check_writes()
        self.lacking = None  # it may be another Redis now

    async def _check_writes(self) -> None:
        """Try a write, then `check`. Raises the error of either."""
        [reply] = await self.insist(("DEL", f"{settings.CACHE_PREFIX}:probe"))
        if isinstance(reply, RedisError):
            if not isinstance(reply, NoPermissionError):
                # It may be a replica now: a new connection may find the new primary.
                self._hang_up()
            raise reply
        if self.check:
            await self.check()


async def _bounded(work: Awaitable[T], seconds: float) -> T:
    """Await `work`. Raises TimeoutError after `seconds`, but not before MIN_TURNS turns of the event loop."""
    loop = asyncio.get_running_loop()
    turn: asyncio.TimerHandle

    def wait(left: int) -> None:
        nonlocal turn
        if left:
            turn = loop.call_later(seconds / MIN_TURNS, wait, left - 1)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        wait(MIN_TURNS)
        try:
            return await work
        finally:
            turn.cancel()


def connect(timeout: float) -> "Redis":
    """Return a client with a connection of its own, which is opened at the first use. `timeout` is for opening it."""
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=timeout, **OPTIONS)


_clients: set[Client] = set()  # the open clients of this process: the page cache's and the rate limits'
_failed_before: Counter[str] = Counter()  # commands of clients that are closed, by kind


@asynccontextmanager
async def open_client(name: str = "Redis") -> AsyncIterator[Client]:
    """Open a client for the block. A Redis that is down is no error here."""
    client = Client(name)
    _clients.add(client)
    try:
        yield client
    finally:
        _clients.discard(client)
        _failed_before.update(client.breaker.failures)
        await client.close()


def sample() -> None:
    OPEN.value = any(client.breaker.is_open for client in _clients)
    failed = sum((client.breaker.failures for client in _clients), _failed_before)
    for kind, count in failed.items():
        FAILURES.labels(kind).value = count


metrics.register(sample)
