"""Finds the identity of the key in a request: in a worker's memory, or by one statement with the key's prefix.

    age of a row in memory | a request with its key
    -----------------------+----------------------------------------------------------------------------
    up to REFRESH_SECONDS  | is answered from memory
    up to TTL_SECONDS      | the same, and the row is read again in the background
    more, or no row        | waits for the row; with the database away that is 503, never 401

So a revocation takes hold after TTL_SECONDS at the latest, and usually at once: a change of the table is published
as every invalidation is (api/cache/changes.py), and a worker that hears of a change forgets all rows.

A prefix that no row has is remembered, too, so that a client with a bad key costs only one statement in TTL_SECONDS.
The comparison takes the same time for a wrong, an expired and a revoked key, and for an unknown prefix.

Outside of a served worker, as in tests and shells, nothing is remembered.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

import orjson
from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now
from django.db.models.sql import UpdateQuery
from ninja import Schema

from api.auth import Identity
from api.cache import changes
from api.keys.minting import digest_of, prefix_of
from api.keys.models import DIGEST_CHARACTERS, ApiKey
from api.reads.fields import Timestamp
from ops.postgres.compiled import One
from ops.postgres.pool import fetch
from ops.postgres.statement import Param, Statement
from ops.tasks import end

logger = logging.getLogger(__name__)

TTL_SECONDS = 4.0  # docs/decisions/0021-keys-and-limits.md promises five; one is a margin
REFRESH_SECONDS = 2.0
MAX_ROWS = 4096  # in memory, 1 kB each
MAX_UNKNOWN = 4096  # prefixes without a row, 0.2 kB each
USED_SECONDS = 600.0  # how precise `time_used` is
MAX_TASKS = 8  # in the background; a further one is left to a later request

TABLE = ApiKey._meta.label_lower  # its tag, in messages of changes


class KeyRow(Schema):
    id: int
    name: str
    digest: str
    scopes: str
    time_expires: Timestamp | None
    time_revoked: Timestamp | None
    time_used: Timestamp | None


find = One(ApiKey.objects.filter(prefix=Param("prefix")), KeyRow)


def _note_use() -> Statement:
    """Return the statement that notes the use of a key, unless one was noted lately. It publishes no change."""
    due = Q(time_used=None) | Q(time_used__lt=Now() - timedelta(seconds=USED_SECONDS))
    update: Any = ApiKey.objects.filter(due, pk=Param("id")).order_by().query.chain(UpdateQuery)
    update.add_update_values({"time_used": Now()})
    sql, parameters = update.get_compiler(connection=connection).as_sql()
    return Statement(sql, tuple(parameters), repeatable=False)


NOTE_USE = _note_use()


class Row:
    """A row of the table as a worker remembers it.

    `valid_until` and `used` are seconds since the epoch; `refresh_at` and `until` are on the monotonic clock.
    """

    __slots__ = ("digest", "id", "identity", "refresh_at", "until", "used", "valid_until")

    def __init__(self, found: dict[str, Any], read: float) -> None:
        """`found` has KeyRow's fields; `read` is when the database was asked, on the monotonic clock."""
        self.id: int = found["id"]
        self.digest: str = found["digest"]
        self.identity = Identity(found["name"], frozenset(found["scopes"].split()))
        revoked = found["time_revoked"] is not None
        self.valid_until = -math.inf if revoked else _epoch(found["time_expires"], math.inf)
        self.used = _epoch(found["time_used"], -math.inf)
        self.refresh_at, self.until = read + REFRESH_SECONDS, read + TTL_SECONDS

    def accepts(self, key: str) -> bool:
        """Whether this is the key's row, and valid. It takes the same time in any case."""
        is_same = compare_digest(digest_of(key), self.digest)
        return is_same & (time.time() < self.valid_until)


def _epoch(moment: str | None, default: float) -> float:
    return default if moment is None else datetime.fromisoformat(moment).timestamp()


UNKNOWN = Row(
    {
        "id": 0,
        "name": "",
        "digest": "0" * DIGEST_CHARACTERS,
        "scopes": "",
        "time_expires": None,
        "time_revoked": "",
        "time_used": None,
    },
    0.0,
)


async def authenticate(credential: str) -> Identity | None:
    """Return the identity of an API key, or None if it is not valid: the default of settings.AUTHENTICATE.

    Raises psycopg.OperationalError if the database has to be asked, and does not answer.
    """
    prefix = prefix_of(credential)
    if not prefix:
        return None
    memory = memories.get(asyncio.get_running_loop())
    if memory is None:
        row = await read(prefix) or UNKNOWN
        return row.identity if row.accepts(credential) else None
    row = memory.get(prefix) or await memory.wait_for(prefix)
    if not row.accepts(credential):
        return None
    if row.used < time.time() - USED_SECONDS:
        memory.note_use(row)
    return row.identity


async def read(prefix: str) -> Row | None:
    """Read the row of a prefix from the database, if there is one. Raises psycopg.OperationalError."""
    began = time.monotonic()
    found = await find(prefix=prefix)
    return None if found is None else Row(orjson.loads(found), began)


class Memory:
    """The rows that a worker remembers. An object belongs to one event loop."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._rows: dict[str, Row] = {}  # by prefix, in the order of their reads
        self._unknown: dict[str, float] = {}  # prefixes without a row; until when, on the monotonic clock
        self._reading: dict[str, asyncio.Task[Row]] = {}  # by prefix, the reads that requests wait for
        self._in_background = 0  # the number of tasks that no request waits for
        self._changes = 0  # the number heard of; a row that was being read during one is not remembered

    def get(self, prefix: str) -> Row | None:
        """Return the remembered row, UNKNOWN for a prefix without a row, or None if neither is remembered."""
        now = time.monotonic()
        row = self._rows.get(prefix)
        if row is None:
            return UNKNOWN if now < self._unknown.get(prefix, 0.0) else None
        if now >= row.refresh_at:
            if now >= row.until:
                return None
            row.refresh_at = row.until  # so that it is read only once
            self._spawn(self.read(prefix))
        return row

    async def wait_for(self, prefix: str) -> Row:
        """Return the result of `read`, by one statement for all requests that wait for the prefix."""
        task = self._reading.get(prefix)
        if task is None:
            # It runs in the context of the first request, so the time of the statement is that request's stage `db`.
            task = self._reading[prefix] = asyncio.get_running_loop().create_task(self.read(prefix))
            self.tasks.add(task)
            task.add_done_callback(self._end)

            def forget(_done: object) -> None:
                if self._reading.get(prefix) is task:
                    del self._reading[prefix]

            task.add_done_callback(forget)
        return await asyncio.shield(task)  # a request that is cancelled does not end the read of the others

    async def read(self, prefix: str) -> Row:
        """Read the row from the database, or UNKNOWN, and remember it. Raises psycopg.OperationalError."""
        began, heard = time.monotonic(), self._changes
        row = await read(prefix)
        if heard == self._changes:
            self._rows.pop(prefix, None)
            if row is None:
                self._unknown.pop(prefix, None)
                self._unknown[prefix] = began + TTL_SECONDS
                if len(self._unknown) > MAX_UNKNOWN:
                    del self._unknown[next(iter(self._unknown))]
            else:
                self._rows[prefix] = row
                if len(self._rows) > MAX_ROWS:
                    del self._rows[next(iter(self._rows))]
        return row or UNKNOWN

    def note_use(self, row: Row) -> None:
        """Note in the background that a key was used, once in USED_SECONDS."""
        row.used = time.time()
        self._spawn(self._write_use(row.id))

    def hear(self, tags: Collection[str]) -> None:
        """Forget all rows if a change of the table is among the tags."""
        if TABLE in tags:
            self._changes += 1
            self._rows.clear()
            self._unknown.clear()
            self._reading.clear()  # a later request does not share an earlier read

    async def _write_use(self, key: int) -> None:
        await fetch(NOTE_USE, NOTE_USE.bind({"id": key}))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        if self._in_background >= MAX_TASKS:
            work.close()
            return
        self._in_background += 1
        task = asyncio.get_running_loop().create_task(work, context=Context())  # apart from the request
        self.tasks.add(task)
        task.add_done_callback(self._end)
        task.add_done_callback(self._leave_background)

    def _leave_background(self, _task: object) -> None:
        self._in_background -= 1

    def _end(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # a request that needs the row has the error, too
            logger.debug("API keys: %s: %s", type(error).__name__, error)


# The memory of each event loop that is a worker's.
memories: dict[asyncio.AbstractEventLoop, Memory] = {}


@asynccontextmanager
async def remember_keys() -> AsyncIterator[None]:
    """Give a worker a memory of keys, which hears of changes, for its lifespan."""
    memory = Memory()
    loop = asyncio.get_running_loop()
    memories[loop] = memory
    changes.listeners.append(memory.hear)
    try:
        yield
    finally:
        changes.listeners.remove(memory.hear)
        del memories[loop]
        await end(*memory.tasks)
