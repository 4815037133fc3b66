"""A worker's Redis: every wait is bounded, and while it is not well nobody waits at all.

Redis is optional to those who use this: whatever goes wrong is `Unavailable`, and they go on without it.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from django.conf import settings
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ops.redis.breaker import Breaker

PATIENCE = 0.05  # seconds for a connection, and for an answer: what takes longer is of no use to a cache
CONNECTIONS = 16  # for a worker's commands; who finds none free waits for PATIENCE

Command = tuple[str | bytes | int, ...]


class Unavailable(Exception):
    """Redis did not do it: it is down, slow, busy with itself, or was not asked since it was so a moment ago."""


class Client:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self.breaker = Breaker("Redis", self._probe)
        self._redis: Redis = Redis.from_pool(  # which it closes, too
            BlockingConnectionPool.from_url(
                settings.REDIS_URL,
                max_connections=CONNECTIONS,
                timeout=PATIENCE,
                socket_connect_timeout=PATIENCE,
                socket_timeout=PATIENCE,
                retry=Retry(NoBackoff(), 0),  # redis-py's own is ten times
            )
        )

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of `keys`, in one round trip. Raises Unavailable."""
        self._refuse_if_open()
        try:
            values: list[Any] = await self._redis.mget(keys)
        except (RedisError, OSError) as error:
            self.breaker.failed(error)
            raise Unavailable(str(error)) from error
        return values

    async def run(self, *commands: Command) -> list[Any]:
        """The replies to `commands`, in one round trip; an error reply is an exception in its place.

        Raises Unavailable.
        """
        self._refuse_if_open()
        try:
            return await self._send(commands)
        except (RedisError, OSError) as error:
            self.breaker.failed(error)
            raise Unavailable(str(error)) from error

    @asynccontextmanager
    async def subscription(self, channel: str) -> AsyncIterator[PubSub]:
        """The messages of a channel, over a connection of their own that is not mended when it breaks."""
        once = Retry(NoBackoff(), 0)
        redis: Redis = Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=PATIENCE, socket_timeout=PATIENCE, retry=once
        )
        async with redis, redis.pubsub() as subscribed:
            await subscribed.subscribe(channel)
            yield subscribed

    async def close(self) -> None:
        await self.breaker.close()
        await self._redis.aclose()

    def _refuse_if_open(self) -> None:
        if self.breaker.is_open:
            raise Unavailable("Redis did not answer a moment ago")

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)

    async def _probe(self) -> None:
        await self._redis.ping()


@asynccontextmanager
async def open_client() -> AsyncIterator[Client]:
    """A client until the block ends. A Redis that is down is no error here."""
    client = Client()
    try:
        yield client
    finally:
        await client.close()
