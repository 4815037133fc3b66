"""Invalidation: a change of rows is published, and each worker that hears of it drops the entries made of them.

    Product.objects.filter(...).update(...)         # invalidates, as save(), delete() and the bulk methods do
    invalidate(Product)                             # after SQL of one's own: any row may have changed
    invalidate(Product, 7, 8)                       # the same, if only these rows have changed
    await ainvalidate(Product, 7)                   # in async code, once the change is committed

After a change by the ORM, a model with an InvalidatingQuerySet as manager needs no call.
"""

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from concurrent.futures import CancelledError
from contextvars import Context
from itertools import count
from typing import Any

import orjson
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Model
from django_redis import get_redis_connection  # type: ignore[import-untyped]
from psycopg import OperationalError
from redis.exceptions import RedisError

from api.cache.lookup import Lookup
from api.cache.policy import ANY, has_key_of, lineage, tag
from api.cache.shared import channel_of, key_of_tag
from ops.postgres.health import ask_postgres
from ops.postgres.pool import pools
from ops.redis.client import Unavailable
from ops.tasks import end

logger = logging.getLogger(__name__)

MAX_KEYS = 100  # rows of one model that a change names one by one; a larger change names ANY
MAX_UNPUBLISHED_TAGS = 1000  # that wait for Redis; if more wait, the tags of their models replace them
PING_SECONDS = (
    0.5  # of silence until Redis is pinged; after as many more without a reply, the connection is lost
)
RETRY_SECONDS = 0.1  # until the next attempt to publish, or to subscribe
MAX_RETRY_SECONDS = 2.0  # the pause between attempts to subscribe doubles up to this
# A worker that has published a change waits until the other workers have dropped their entries, CONFIRM_SECONDS at
# most, since its client may send the next request to one of them: without the wait, 64 of 800 reads were older than
# the write before them. A listener that does not confirm, such as a worker of an older release, is left out of the
# wait in the next SILENT_SECONDS.
CONFIRM_SECONDS = 0.05
SILENT_SECONDS = 10.0
# Begins the last item of a message that asks for a confirmation. An older release takes the item for a tag.
CONFIRM = "?"
ASK_SECONDS = 0.5  # between two attempts to reach Postgres after the connection was lost during a write
# Once Postgres answers again, a write that it got before the loss ends within this time: statement_timeout is 1 s.
LATE_WRITE_SECONDS = 2.0
LAST_PUBLISH_SECONDS = 0.2  # that a stopping worker has to publish its last changes

_again: dict[type[Model], "asyncio.Task[None]"] = {}  # by model: the task that invalidates it once more

# Called, besides the page cache, with the tags of each change that this process makes or hears of; in any thread.
listeners: list[Callable[[Collection[str]], None]] = []


class Batch:
    """The changes of a transaction, or of a part of it that can be rolled back alone; a call publishes them."""

    def __init__(self) -> None:
        self.keys: dict[type[Model], set[Any]] = {}

    def add(self, model: type[Model], keys: Iterable[Any]) -> None:
        self.keys.setdefault(model, set()).update(keys)

    def tags(self) -> list[str]:
        return [name for model, keys in self.keys.items() for name in _tags(model, keys)]

    def __call__(self) -> None:
        _publish(self.tags())


class AsyncBatch(Batch):
    """A batch of a transaction of ops/postgres/transactions.py, which awaits the call after the commit."""

    async def __call__(self) -> None:  # type: ignore[override]
        await _apublish(self.tags())

    async def on_unknown(self) -> None:
        """Invalidate the models after the connection was lost during the COMMIT."""
        await invalidate_unknown(*self.keys)


def _tags(model: type[Model], keys: Iterable[Any]) -> list[str]:
    """Return the tags of the entries that a change of these rows makes invalid: lists (None) and single rows.

    Many rows become ANY. A row of a child model is a row of its parents, too: `lineage` has it and its parents.
    """
    changed = [*keys]
    if ANY in changed or len(changed) > MAX_KEYS:
        changed = [ANY]
    return [
        tag(table, key)
        for table in lineage(model)
        for key in (None, *(changed if has_key_of(model, table) else [ANY]))
    ]


def invalidate(model: type[Model], *keys: Any, using: str = DEFAULT_DB_ALIAS) -> None:
    """Drop the answers that depend on changed rows of `model`: those with the primary keys `keys`, or any.

    It takes effect when the transaction is committed, not if the transaction is rolled back; outside of one, at once.
    """
    connection = connections[using]
    newest = connection.run_on_commit[0] if connection.run_on_commit else None
    # Changes join the newest batch if each savepoint that is open now was open when the batch was made: then neither
    # can be rolled back without the other. A savepoint of the batch that is not open now was released, since a
    # rollback would have removed the batch. None stands for an atomic block without a savepoint.
    if newest and isinstance(newest[1], Batch) and {*connection.savepoint_ids} - {None} <= newest[0]:
        newest[1].add(model, keys or (ANY,))
        return
    batch = Batch()
    batch.add(model, keys or (ANY,))
    transaction.on_commit(batch, using=using)
    if connection.in_atomic_block:  # first of all: a hook that fails ends the rest
        connection.run_on_commit.insert(0, connection.run_on_commit.pop())


async def ainvalidate(model: type[Model], *keys: Any) -> None:
    """Like `invalidate`, but at once and in async code: the change must be committed already."""
    await _apublish(_tags(model, keys or (ANY,)))


async def invalidate_unknown(*models: type[Model]) -> None:
    """Invalidate after the connection was lost during a write: at once, and again when the write must have ended.

    A Postgres that froze during the write may still have it, and execute it later.
    """
    for model in models:
        await ainvalidate(model)
        if before := _again.get(model):
            before.cancel()
        _again[model] = asyncio.get_running_loop().create_task(_invalidate_again(model), context=Context())


async def _invalidate_again(model: type[Model]) -> None:
    """Wait until Postgres answers, and until a write that it still had must have ended; then invalidate."""
    is_away = True
    while is_away:
        await asyncio.sleep(ASK_SECONDS)
        with contextlib.suppress(OperationalError):
            await ask_postgres()
            is_away = False
    await asyncio.sleep(LATE_WRITE_SECONDS)
    await ainvalidate(model)


async def _apublish(tags: list[str]) -> None:
    """Publish from async code, and wait until that is done."""
    _tell(tags)
    if _publisher and _publisher.is_in_loop():
        await _publisher.publish(tags)
    elif asyncio.get_running_loop() not in pools or settings.PAGE_CACHE != "off":
        await asyncio.to_thread(_publish, tags)
    # Else this is a worker with PAGE_CACHE=off, which publishes nothing from async code: either all workers on one
    # Redis have a page cache, or none.


def _tell(tags: Collection[str]) -> None:
    for listener in listeners:
        listener(tags)


def _publish(tags: list[str]) -> None:
    """Publish from code that is not async.

    In the worker's event loop, it starts a task and returns. In another thread of the worker, it waits for that task,
    one second at most. In a process without a publisher (a command, a shell, a worker with PAGE_CACHE=off), it sends
    the commands to Redis itself, and logs a warning if Redis fails.
    """
    _tell(tags)
    publisher = _publisher  # read once, since the loop sets it to None when the worker stops
    if publisher and publisher.is_in_loop():
        publisher.publish_soon(tags)
    elif publisher:
        done = asyncio.run_coroutine_threadsafe(publisher.publish(tags), publisher.loop)
        # A loop that is stuck or ends is no error of the caller: the rows are committed.
        with contextlib.suppress(TimeoutError, CancelledError):
            done.result(timeout=1.0)
    else:
        prefix = settings.CACHE_PREFIX
        try:
            with get_redis_connection("default").pipeline(transaction=False) as pipeline:
                pipeline.delete(*(key_of_tag(prefix, name) for name in tags))
                pipeline.publish(channel_of(prefix), orjson.dumps(tags))
                pipeline.execute()
        except RedisError as error:
            logger.warning("Cached pages may be out of date until they expire: Redis: %s", error)


class Confirmations:
    """The confirmations of one change: how many have come, and how many are due once Redis has replied."""

    def __init__(self, ended: "asyncio.Future[None]") -> None:
        self.ended = ended  # done when all have come, or when their time is over
        self.come, self.due = 0, sys.maxsize

    def add(self) -> None:
        self.come += 1
        if self.come >= self.due:
            self.end()

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


class Publisher:
    """A worker's part in invalidation: publishes its changes, and drops entries when others publish theirs.

    It starts listening when it is made, and belongs to the event loop that runs at that moment.
    """

    def __init__(self, lookup: Lookup) -> None:
        self.loop = asyncio.get_running_loop()
        self.subscribed = False
        self.invalidations = 0  # messages received
        self._name = secrets.token_hex(8)
        self._changes = count(1)
        # The confirmations of the changes that this worker is publishing, by the number of the change.
        self._unconfirmed: dict[int, Confirmations] = {}
        # The number of listeners that did not confirm, and until when `_wait_for` does not count on them.
        self._silent, self._silent_until = 0, 0.0
        self._lookup, self._shared = lookup, lookup.shared
        self._failures = 0  # how many attempts to publish have failed
        self._unpublished: dict[str, int] = {}  # tags, each with the number of the last failure to publish it
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = self.loop.create_task(self._listen())

    def is_in_loop(self) -> bool:
        """Whether the caller runs in the event loop itself, where it must not block."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    async def publish(self, tags: Iterable[str]) -> None:
        """Invalidate the tags in all workers. If Redis is unavailable, a task publishes them once Redis is back.

        On return, this worker has dropped its entries, and so have the workers that confirm within CONFIRM_SECONDS.
        """
        self._lookup.invalidate(tags)
        number = next(self._changes)
        confirmations = self._unconfirmed[number] = Confirmations(self.loop.create_future())
        try:
            told = await self._shared.invalidate(tags, request=f"{CONFIRM}{self._name}:{number}")
            await self._wait_for(confirmations, told - 1)  # without this worker
        except Unavailable:
            if not self._unpublished:
                self._spawn(self._retry())
            self._failures += 1
            self._unpublished |= dict.fromkeys(tags, self._failures)
            if len(self._unpublished) > MAX_UNPUBLISHED_TAGS:
                models = {name.partition(":")[0] for name in self._unpublished}
                tags = (*models, *(f"{model}:{ANY}" for model in models))
                self._unpublished = dict.fromkeys(tags, self._failures)
            self._shared.unpublished = {*self._unpublished}
        finally:
            del self._unconfirmed[number]
        self._lookup.invalidate(tags)  # entries that were found in Redis meanwhile

    async def _wait_for(self, confirmations: "Confirmations", others: int) -> None:
        """Wait until the other listeners, `others` in number, have confirmed a change, CONFIRM_SECONDS at most."""
        silent = self._silent if self.loop.time() < self._silent_until else 0
        confirmations.due = others - silent
        if not self.subscribed or confirmations.come >= confirmations.due:
            return
        expiry = self.loop.call_later(CONFIRM_SECONDS, confirmations.end)
        try:
            await confirmations.ended
        finally:
            expiry.cancel()
        if confirmations.come < confirmations.due:
            self._silent = others - confirmations.come
            self._silent_until = self.loop.time() + SILENT_SECONDS

    def publish_soon(self, tags: list[str]) -> None:
        """Drop this worker's entries at once, and publish the tags in the background."""
        self._lookup.invalidate(tags)
        self._spawn(self.publish(tags))

    async def close(self) -> None:
        await end(self._listening)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_PUBLISH_SECONDS)
        await end(*self._tasks)

    async def _retry(self) -> None:
        """Publish the tags that Redis has not taken, until it takes them."""
        while self._unpublished:
            await asyncio.sleep(RETRY_SECONDS)
            published = self._unpublished.copy()
            with contextlib.suppress(Unavailable):
                await self._shared.invalidate(published, insist=True)
                # A tag with a newer failure is kept: its last change may be later than this deletion.
                self._unpublished = {
                    name: failure
                    for name, failure in self._unpublished.items()
                    if published.get(name) != failure
                }
                self._shared.unpublished = {*self._unpublished}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        """Subscribe, and receive until the connection is lost; then subscribe again, for ever.

        The worker may have missed changes while it was not subscribed. So it distrusts its entries when it loses a
        subscription, and again when the next one begins.
        """
        pause = RETRY_SECONDS
        while True:
            try:
                await self._shared.check_identity()
                channels = (self._shared.channel, self._own_channel(self._name))
                async with self._shared.client.subscription(*channels) as channel:
                    await self._receive(channel)
            except Exception as error:  # noqa: BLE001  after any error, the worker has to subscribe again
                logger.debug("The subscription to changes is lost: %s: %s", type(error).__name__, error)
            pause = min(2 * pause, MAX_RETRY_SECONDS)
            if self.subscribed:
                self.subscribed = False
                self._lookup.distrust()
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _receive(self, channel: Any) -> None:
        """Invalidate the tags in each message. Raises an error when the connection is lost.

        After PING_SECONDS of silence it sends a ping. After as many more without a message or the ping's reply, or if
        the subscription was not confirmed in that time, the connection counts as lost.
        """
        pinged = False
        while True:
            message = await channel.get_message(timeout=PING_SECONDS)
            if message is None:
                if pinged or not self.subscribed:
                    raise ConnectionError("no answer")
                await channel.ping()
                pinged = True
                continue
            pinged = False
            if message["type"] == "subscribe":
                self._lookup.distrust()
                self.subscribed = True
            elif message["type"] == "message" and message["channel"] == self._shared.channel.encode():
                self.invalidations += 1
                with contextlib.suppress(orjson.JSONDecodeError):  # a message from elsewhere
                    tags = orjson.loads(message["data"])
                    if isinstance(tags, list):
                        self._hear([name for name in tags if isinstance(name, str)])
            elif message["type"] == "message":
                with contextlib.suppress(ValueError):  # not a number
                    if confirmations := self._unconfirmed.get(int(message["data"])):
                        confirmations.add()
                    else:  # a late confirmation: its listener is slow, not silent
                        self._silent_until = 0.0

    def _hear(self, tags: list[str]) -> None:
        """Drop the entries that depend on the tags of a change. Confirm that to another worker if it asks."""
        _tell(tags)
        self._lookup.invalidate(tags)
        if tags and tags[-1].startswith(CONFIRM):
            name, _, number = tags[-1].removeprefix(CONFIRM).partition(":")
            if name != self._name:
                self._spawn(self._confirm(name, number))

    async def _confirm(self, name: str, number: str) -> None:
        """Tell the worker `name` that this one has dropped the entries of its change `number`."""
        with contextlib.suppress(Unavailable):
            await self._shared.client.run(("PUBLISH", self._own_channel(name), number))

    def _own_channel(self, name: str) -> str:
        """The channel on which the worker `name` receives the confirmations of its changes."""
        return f"{self._shared.channel}:{name}"


_publisher: Publisher | None = None  # this process's, while it is a worker with a page cache


@contextlib.asynccontextmanager
async def open_publisher(lookup: Lookup) -> AsyncIterator[Publisher]:
    """Make this worker take part in invalidation until the block ends."""
    global _publisher  # noqa: PLW0603  rows change anywhere in a process, and signals pass no worker on
    publisher = _publisher = Publisher(lookup)
    try:
        yield publisher
    finally:
        _publisher = None
        await publisher.close()
