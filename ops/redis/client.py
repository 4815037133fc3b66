"""A worker's Redis: every wait is bounded, and while Redis is not well no request waits for it at all.

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

TIMEOUT_SECONDS = 0.05  # for a reply, connecting included: a slower one is of no use to a cache
MIN_TURNS = 10  # of the event loop, that it takes until a connection is too late: see connection.TURN_SECONDS
BACKGROUND_TIMEOUT_SECONDS = 0.25  # for commands that no request waits for
CHECK_SECONDS = 0.5  # between two checks that Redis takes writes
# Probes that close the breaker. Three leave time for invalidations that wait to be published before entries are read.
MIN_PROBES = 3
PROBE_SECONDS = 0.25  # between two of them

OPTIONS: dict[str, Any] = {
    "protocol": 2,  # Redis has the next since 6.0, and nothing here needs it
    "retry": Retry(NoBackoff(), 0),  # redis-py's default is ten retries
    # One deadline for a whole command is set here. redis-py's add up, and are asyncio.wait_for, which before Python
    # 3.12 can swallow a cancellation.
    "socket_timeout": None,
}

OPEN = metrics.gauge("redis_breaker_open", "1 while Redis is left alone.", over="max").labels()
FAILURES = metrics.counter("redis_failures_total", "Commands that Redis did not do.", "kind")

T = TypeVar("T")


class Unavailable(Exception):
    """Redis failed: it is down, slow or loading, or was not asked since the breaker is open."""


class NotSent(Unavailable):
    """Nothing was sent: Redis has not done it, and will not do it later."""


class Client:
    """Belongs to one event loop."""

    def __init__(self, name: str = "Redis") -> None:
        """`name` is for the log."""
        self.breaker = Breaker(name, self._probe, probe_seconds=PROBE_SECONDS, min_probes=MIN_PROBES)
        # Raises if Redis must not be relied on for another reason.
        self.check: Callable[[], Awaitable[None]] | None = None
        # Makes connections by the address, and keeps none.
        self._source = ConnectionPool.from_url(
            settings.REDIS_URL, socket_connect_timeout=TIMEOUT_SECONDS, **OPTIONS
        )
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self.lacking: list[str] | None = None  # commands that it refuses; None until it was asked
        self._checking = asyncio.get_running_loop().create_task(self._check_regularly())

    async def run(self, *commands: Command) -> list[Any]:
        """The replies to `commands`, in one round trip; an error reply is an exception in its place.

        Raises NotSent, or another Unavailable: then they may be executed all the same, before what is sent later.
        """
        self._refuse_if_open()
        return await self._send(commands, TIMEOUT_SECONDS)

    async def ask(self, *command: str | bytes | int) -> Any:
        """The reply to one command, as from `run`. Raises Unavailable."""
        self._refuse_if_open()
        return (await self._send((command,), TIMEOUT_SECONDS))[0]

    async def insist(self, *commands: Command) -> list[Any]:
        """The same as `run`, even while the breaker is open: for commands in the background."""
        return await self._send(commands, BACKGROUND_TIMEOUT_SECONDS)

    def distrust(self, error: Exception) -> None:
        """Redis answers, and yet its data must not be relied on: open the breaker."""
        self.breaker.open(error)

    @asynccontextmanager
    async def subscription(self, *channels: str) -> AsyncIterator[PubSub]:
        """The messages of channels, over a connection of its own that is not opened again when it breaks."""
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
                if not self._connecting:  # it is opened once for all that need it meanwhile
                    self._connecting = asyncio.get_running_loop().create_task(self._open(), context=Context())
                    self._connecting.add_done_callback(self._connected)
                connection = await asyncio.shield(self._connecting)
            replied = connection.send(commands, seconds)
            failure = Unavailable
            replies = await replied
        except (Full, Lost) as error:  # the one is no failure, the other is counted once, by _lost
            raise failure(str(error)) from error
        except (RedisError, OSError) as error:
            self.breaker.failed(error)
            raise failure(str(error)) from error
        if seconds <= TIMEOUT_SECONDS:  # as a request needs it; one that may take longer proves nothing
            self.breaker.succeeded()
        return replies

    async def _open(self) -> Connection:
        opened = cast("Any", self._source).make_connection()  # without types
        try:
            await _bounded(opened.connect(), TIMEOUT_SECONDS)
        except BaseException:
            await opened.disconnect(nowait=True)  # its socket may be open, and waits for a greeting
            raise
        self._connection = take_over(opened, self._lost)
        return self._connection

    def _connected(self, connecting: "asyncio.Task[Connection]") -> None:
        self._connecting = None
        if not connecting.cancelled():
            connecting.exception()  # no news for the log if nobody waits for it any more

    def _lost(self, connection: Connection, error: Exception) -> None:
        if connection is self._connection:
            self._connection = None
            self.breaker.failed(error)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.fail(Lost("this worker has hung up"))

    async def _check_regularly(self) -> None:
        """Notice that Redis is away or takes no writes, also if the worker does not write.

        A replica, or a server with a full disk, goes on returning entries that it can no longer invalidate.
        """
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self.lacking is None:
                with suppress(RedisError, OSError):  # as long as it is down
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
        """Raises the error of a write, or of `check`."""
        [reply] = await self.insist(("DEL", f"{settings.CACHE_PREFIX}:probe"))
        if isinstance(reply, RedisError):
            if not isinstance(reply, NoPermissionError):
                # It may be a replica now: a new connection may find the new primary.
                self._hang_up()
            raise reply
        if self.check:
            await self.check()


async def _bounded(work: Awaitable[T], seconds: float) -> T:
    """Raises TimeoutError if there is no result in time, which passes in MIN_TURNS turns of the loop at least."""
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
    """A connection beside the worker's; it is made when it is used first."""
    return Redis.from_url(settings.REDIS_URL, socket_connect_timeout=timeout, **OPTIONS)


_clients: set[Client] = set()  # of this process: the page cache's, and that of the rate limits
_failed_before: Counter[str] = Counter()  # commands of clients that are closed, by kind


@asynccontextmanager
async def open_client(name: str = "Redis") -> AsyncIterator[Client]:
    """A client until the block ends. A Redis that is down is no error here."""
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
