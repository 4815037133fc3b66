"""A worker's Redis: every wait is bounded, and while it is not well nobody waits at all.

Redis is optional to those who use this: whatever goes wrong is `Unavailable`, and they go on without it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from django.conf import settings
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ops.asgi.tasks import end
from ops.redis.breaker import Breaker

PATIENCE = 0.05  # seconds for an answer, connecting included: what takes longer is of no use to a cache
# It is counted in so many turns of the event loop at least. What a worker is late itself, since it is busy or has
# no processor, is not Redis's fault: with the loop blocked for 80 ms as a command was sent, a plain timeout failed 7
# of 20 whose answer had come in time.
TURNS = 10
CONNECTIONS = 16  # for a worker's requests; who finds none free waits, which is no failure of Redis's
SPARE = 4  # for what no request waits for
LONGER_PATIENCE = 0.25  # seconds, for what no request waits for
BEAT = 0.5  # seconds between two looks whether Redis takes writes

Command = tuple[str | bytes | int, ...]
T = TypeVar("T")


class Unavailable(Exception):
    """Redis did not do it: it is down, slow, busy with itself, or was not asked since it was so a moment ago."""


class Client:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self.breaker = Breaker("Redis", self._probe)
        self.check: Callable[[], Awaitable[None]] | None = (
            None  # what else has to hold for it to be relied on
        )
        self._redis: Redis = Redis.from_pool(  # which it closes, too
            BlockingConnectionPool.from_url(
                settings.REDIS_URL,
                max_connections=CONNECTIONS + SPARE,
                retry=Retry(NoBackoff(), 0),  # redis-py's own is ten times
                # One deadline for all of a command is set here. redis-py's add up, and are asyncio.wait_for, which
                # before Python 3.12 can swallow a cancellation. It closes with the patience that it connects with.
                timeout=None,
                socket_connect_timeout=PATIENCE,
                socket_timeout=None,
            )
        )
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of `keys`, in one round trip. Raises Unavailable."""
        await self._take_turn()
        try:
            values: list[bytes | None] = await self._try(self._redis.mget(keys), PATIENCE)
        finally:
            self._turns.release()
        return values

    async def run(self, *commands: Command) -> list[Any]:
        """The replies to `commands`, in one round trip; an error reply is an exception in its place.

        Raises Unavailable.
        """
        await self._take_turn()
        try:
            replies: list[Any] = await self._try(self._send(commands), PATIENCE)
        finally:
            self._turns.release()
        return replies

    async def insist(self, *commands: Command) -> list[Any]:
        """The same, even if Redis did not answer a moment ago: for what can wait, beside the requests."""
        replies: list[Any] = await self._try(self._send(commands), LONGER_PATIENCE)
        return replies

    def distrust(self, error: Exception) -> None:
        """Redis answers, and yet nobody should rely on what it holds."""
        self.breaker.open(error)

    @asynccontextmanager
    async def subscription(self, channel: str) -> AsyncIterator[PubSub]:
        """The messages of a channel, over a connection of their own that is not mended when it breaks."""
        once = Retry(NoBackoff(), 0)
        redis: Redis = Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=PATIENCE, socket_timeout=None, retry=once
        )
        async with redis, redis.pubsub() as subscribed:
            await _bounded(subscribed.subscribe(channel), PATIENCE)
            yield subscribed

    async def close(self) -> None:
        await end(self._beating)
        await self.breaker.close()
        with suppress(RedisError, OSError):  # a Redis that does not let go is left
            await self._redis.aclose()

    async def _take_turn(self) -> None:
        """Wait for a free connection, unless Redis is not asked at all. Raises Unavailable."""
        self._refuse_if_open()
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            await _bounded(self._turns.acquire(), LONGER_PATIENCE)
        except TimeoutError:
            raise Unavailable("All connections are busy") from None
        if self.breaker.is_open:
            self._turns.release()
            self._refuse_if_open()

    def _refuse_if_open(self) -> None:
        if self.breaker.is_open:
            raise Unavailable("Redis did not answer a moment ago")

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    async def _try(self, work: Awaitable[Any], patience: float) -> Any:
        try:
            done = await _bounded(work, patience)
        except (RedisError, OSError) as error:
            self.breaker.failed(error)
            raise Unavailable(str(error)) from error
        self.breaker.succeeded()
        return done

    async def _beat(self) -> None:
        """Notice in time, also if nobody writes, that Redis is away or takes no writes.

        A replica, or a server whose disk is full, goes on giving away entries that it can no longer invalidate.
        """
        while True:
            await asyncio.sleep(BEAT)
            if not self.breaker.is_open:
                try:
                    await self._take_pulse()
                except (RedisError, Unavailable) as error:
                    self.distrust(error)

    async def _probe(self) -> None:
        """Raises what speaks against asking it again."""
        await self._try(self._redis.ping(), PATIENCE)
        await self._take_pulse()

    async def _take_pulse(self) -> None:
        """Raises what Redis says to a write, or what else it lacks."""
        [reply] = await self.insist(("DEL", f"{settings.CACHE_PREFIX}:probe"))
        if isinstance(reply, RedisError):
            # A primary that is none any more: a new connection may find the next.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise reply
        if self.check:
            await self.check()


async def _bounded(work: Awaitable[T], patience: float) -> T:
    """Raises TimeoutError where there is no result in time."""
    loop = asyncio.get_running_loop()
    turn: asyncio.TimerHandle

    def wait(left: int) -> None:
        nonlocal turn
        if left:
            turn = loop.call_later(patience / TURNS, wait, left - 1)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        wait(TURNS)
        try:
            return await work
        finally:
            turn.cancel()


@asynccontextmanager
async def open_client() -> AsyncIterator[Client]:
    """A client until the block ends. A Redis that is down is no error here."""
    client = Client()
    try:
        yield client
    finally:
        await client.close()
