"""Invalidation: whoever changes rows says so, and no worker answers with what depended on them.

    Product.objects.filter(...).update(...)         # says so itself, as save(), delete() and the bulk methods do
    invalidate(Product)                             # after SQL of one's own: any of its rows may have changed
    invalidate(Product, 7, 8)                       # or these
    await ainvalidate(Product, 7)                   # in async code, once the change is committed

The models whose manager is an InvalidatingQuerySet take care of themselves.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

import orjson
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Model
from django_redis import get_redis_connection  # type: ignore[import-untyped]
from redis.exceptions import RedisError

from api.cache.finding import Finder
from api.cache.policy import ANY, lineage, tag
from api.cache.shared import channel_of, key_of_tag
from ops.asgi.tasks import end
from ops.redis.client import Unavailable

logger = logging.getLogger(__name__)

MOST_KEYS = 100  # rows of one model that are named one by one; of more, any may have changed
MOST_UNTOLD = 1000  # tags that wait for Redis to take them; of more, their models'
SILENCE = (
    0.5  # seconds without a word from Redis until a worker asks whether it is still there, and waits for
)
RETRY = 0.1  # seconds until it subscribes, or tells of changes, again
FAREWELL = 0.2  # seconds that a worker which stops takes to tell what it has changed last


class Batch:
    """The changes of one transaction, or of the part of it that is rolled back as one; called on its commit."""

    def __init__(self) -> None:
        self.keys: dict[type[Model], set[Any]] = {}

    def add(self, model: type[Model], keys: Iterable[Any]) -> None:
        self.keys.setdefault(model, set()).update(keys)

    def tags(self) -> list[str]:
        return [name for model, keys in self.keys.items() for name in _tags(model, keys)]

    def __call__(self) -> None:
        _publish(self.tags())


def _tags(model: type[Model], keys: Iterable[Any]) -> list[str]:
    named = [*keys]
    if ANY in named or len(named) > MOST_KEYS:
        named = [ANY]
    return [tag(one, key) for one in lineage(model) for key in (None, *named)]


def invalidate(model: type[Model], *keys: Any, using: str = DEFAULT_DB_ALIAS) -> None:
    """Rows of `model` have changed: those with these primary keys, or any. Takes effect once that is committed."""
    connection = connections[using]
    last = connection.run_on_commit[-1] if connection.run_on_commit else None
    # Savepoints of the last batch that are not open any more were kept: only open ones may yet be rolled back. None
    # is a block without a savepoint.
    if last and isinstance(last[1], Batch) and {*connection.savepoint_ids} - {None} <= last[0]:
        last[1].add(model, keys or (ANY,))
        return
    batch = Batch()
    batch.add(model, keys or (ANY,))
    transaction.on_commit(batch, using=using)


async def ainvalidate(model: type[Model], *keys: Any) -> None:
    """The same, at once: the change must be committed."""
    tags = _tags(model, keys or (ANY,))
    if _announcer and _announcer.is_here():
        await _announcer.announce(tags)
    else:
        await asyncio.to_thread(_publish, tags)


def _publish(tags: list[str]) -> None:
    if _announcer is None:
        _publish_alone(tags)
    elif _announcer.is_here():
        _announcer.announce_soon(tags)
    else:
        done = asyncio.run_coroutine_threadsafe(_announcer.announce(tags), _announcer.loop)
        with contextlib.suppress(TimeoutError):  # a loop that is stuck: what was written stays written
            done.result(timeout=1.0)


def _publish_alone(tags: list[str]) -> None:
    """For processes that are no workers: commands, a shell."""
    prefix = settings.CACHE_PREFIX
    try:
        with get_redis_connection("default").pipeline(transaction=False) as pipeline:
            pipeline.delete(*(key_of_tag(prefix, name) for name in tags))
            pipeline.publish(channel_of(prefix), orjson.dumps(tags))
            pipeline.execute()
    except RedisError as error:
        logger.warning("Cached pages may be out of date until they expire: Redis: %s", error)


class Announcer:
    """A worker's part in it: tells the others what has changed here, and hears what has changed elsewhere."""

    def __init__(self, finder: Finder) -> None:
        self.loop = asyncio.get_running_loop()
        self.subscribed = False
        self.invalidations = 0
        self._finder, self._shared = finder, finder.shared
        self._failures = 0  # to tell of changes
        self._untold: dict[str, int] = {}  # tags by the last failure to tell of them
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._listening = self.loop.create_task(self._listen())

    def is_here(self) -> bool:
        """Whether the caller runs in the event loop itself, where it cannot wait."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    async def announce(self, tags: Iterable[str]) -> None:
        """Returns once every worker has been told; what Redis does not take now, it gets as soon as it does."""
        self._finder.forget(tags)
        try:
            await self._shared.change(tags)
        except Unavailable:
            self._postpone(tags)
        self._finder.forget(tags)  # what was found in Redis meanwhile

    def announce_soon(self, tags: list[str]) -> None:
        self._finder.forget(tags)
        self._spawn(self.announce(tags))

    async def close(self) -> None:
        await end(self._listening)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FAREWELL)
        await end(*self._tasks)

    def _postpone(self, tags: Iterable[str]) -> None:
        if not self._untold:
            self._spawn(self._retry())
        self._failures += 1
        self._untold |= dict.fromkeys(tags, self._failures)
        if len(self._untold) > MOST_UNTOLD:
            models = {name.partition(":")[0] for name in self._untold}
            tags = (*models, *(f"{model}:{ANY}" for model in models))
            self._untold = dict.fromkeys(tags, self._failures)
        self._shared.untold = {*self._untold}

    async def _retry(self) -> None:
        while self._untold:
            await asyncio.sleep(RETRY)
            told = self._untold.copy()
            with contextlib.suppress(Unavailable):
                await self._shared.change(told, insist=True)
                # What has changed again meanwhile, and could not be told, may not have been told with this.
                self._untold = {name: at for name, at in self._untold.items() if told.get(name) != at}
                self._shared.untold = {*self._untold}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        """Drop what others have changed, for ever. Whoever is not heard may have changed anything."""
        while True:
            try:
                await self._shared.recognise()
                async with self._shared.client.subscription(self._shared.channel) as channel:
                    await self._hear(channel)
            except Exception as error:  # noqa: BLE001  whatever it is, a worker has to hear
                logger.debug("The subscription to changes is lost: %s: %s", type(error).__name__, error)
            if self.subscribed:
                self.subscribed = False
                self._finder.doubt()
            await asyncio.sleep(RETRY)

    async def _hear(self, channel: Any) -> None:
        asked = False
        while True:
            message = await channel.get_message(timeout=SILENCE)
            if message is None:
                if asked or not self.subscribed:
                    raise ConnectionError("no answer")
                await channel.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                self._finder.doubt()
                self.subscribed = True
            elif message["type"] == "message":
                self.invalidations += 1
                self._finder.forget(_tags_of(message["data"]))


def _tags_of(data: bytes) -> list[str]:
    """The tags of a message; none in what was not sent by us."""
    try:
        tags = orjson.loads(data)
    except orjson.JSONDecodeError:
        return []
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


_announcer: Announcer | None = None  # this process's, while it is a worker with a page cache


@contextlib.asynccontextmanager
async def heard(finder: Finder) -> AsyncIterator[Announcer]:
    """The worker takes part in invalidation until the block ends."""
    global _announcer  # noqa: PLW0603  a process has one
    announcer = _announcer = Announcer(finder)
    announcer.start()
    try:
        yield announcer
    finally:
        _announcer = None
        await announcer.close()
