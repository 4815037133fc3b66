"""One transaction on a connection of its own, for work that takes longer than a request's statements may.

A worker has few connections in its native pool, for quick statements. What waits for a client needs another one. How
many there are at a time is the caller's to bound, and part of the connection budget.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection as djangos
from psycopg import AsyncConnection, OperationalError
from psycopg.pq import TransactionStatus
from psycopg_pool import TooManyRequests

from ops.postgres.connection import OutcomeUnknown, is_lost
from ops.postgres.health import ask_postgres
from ops.postgres.pool import Busy, connection_parameters, pools
from ops.postgres.session import verify
from ops.tasks import end

LOCK_SECONDS = 5  # until it gives up to wait for a lock; a request gives up after half a second
# Seconds for which data may stay unacknowledged. A request gives up after 5; but Postgres stops to read for so long
# when it writes a checkpoint.
ACKNOWLEDGED_SECONDS = 30
ASK_SECONDS = 1.0  # between two questions to Postgres, while a statement is under way
SILENT_SECONDS = 15.0  # for which Postgres may answer nobody
COMMIT_SECONDS = 60.0  # until a commit is given up


class LongTransaction:
    """`connection` runs its statements, with savepoints by `connection.transaction()`, until `commit`."""

    def __init__(self, connection: "AsyncConnection[Any]") -> None:
        self.connection = connection
        # Within a transaction of Django's, a test's, it is a savepoint.
        is_outermost = connection.pgconn.transaction_status == TransactionStatus.IDLE
        self._begin, self._commit, self._rollback = (
            ("BEGIN", "COMMIT", "ROLLBACK")
            if is_outermost
            else ("SAVEPOINT long", "RELEASE SAVEPOINT long", "ROLLBACK TO SAVEPOINT long")
        )
        self._is_open = False

    async def begin(self) -> None:
        await self.connection.execute(self._begin)
        self._is_open = True
        # The session's are a request's. SET LOCAL, since a pooler may give each transaction another session.
        idle = 2 * settings.STREAM_PATIENCE_SECONDS  # a client that is silent for so long is refused before
        await self.connection.execute(
            f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; "
            f"SET LOCAL idle_in_transaction_session_timeout = '{idle:g}s'; "
            "SET CONSTRAINTS ALL IMMEDIATE"  # a deferred one would be an error of the commit, and wait in memory
        )

    async def commit(self) -> None:
        """Raises OutcomeUnknown if the connection is lost meanwhile, or there is no answer for COMMIT_SECONDS."""
        was_lost = self.connection.closed
        try:
            with in_time(self.connection, COMMIT_SECONDS):
                await self.connection.execute(self._commit)
        except OperationalError as error:
            if was_lost or not is_lost(error):
                raise
            raise OutcomeUnknown(str(error)) from error
        finally:
            self._is_open = False

    async def rollback(self) -> None:
        """Unless it is committed."""
        if self._is_open:
            self._is_open = False
            await self.connection.execute(self._rollback)


@asynccontextmanager
async def long_transaction() -> AsyncIterator[LongTransaction]:
    """Rolled back, unless the block commits it. Raises OperationalError where no connection can be opened.

    A connection of its own is closed at the end of the block, whatever has happened: nothing is left of it, even if
    the server cannot be told. Where no native pool is open, it is Django's, as for every other statement.
    """
    if asyncio.get_running_loop() not in pools:
        async with _djangos() as connection:
            transaction = LongTransaction(connection)
            await transaction.begin()
            try:
                yield transaction
            finally:
                await transaction.rollback()
        return
    async with own_connection(tcp_user_timeout=ACKNOWLEDGED_SECONDS * 1000) as connection:
        transaction = LongTransaction(connection)
        with in_time(connection):
            await transaction.begin()
        watching = asyncio.create_task(_watch(connection))
        try:
            yield transaction
        finally:
            await end(watching)


async def _watch(connection: "AsyncConnection[Any]") -> None:
    """Cut the connection once Postgres, frozen, say, has answered nobody for SILENT_SECONDS.

    A statement on it may take an hour, so its own silence tells nothing. Others are asked for, by the pool.
    """
    loop = asyncio.get_running_loop()
    heard = loop.time()
    while loop.time() - heard < SILENT_SECONDS:
        await asyncio.sleep(ASK_SECONDS)
        try:
            await ask_postgres()
        except (Busy, TooManyRequests):
            pass
        except OperationalError:
            continue
        heard = loop.time()
    _cut(connection)


@contextmanager
def in_time(connection: "AsyncConnection[Any]", seconds: float | None = None) -> Iterator[None]:
    """End the block's statements with OperationalError after `seconds`, by default those that a request's may take.

    A server may accept a connection and answer nothing on it, as PgBouncer does while its Postgres is frozen. A
    cancellation is no help there: psycopg waits for the answer to it.
    """
    seconds = settings.NATIVE_POOL.deadline if seconds is None else seconds
    timer = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: "AsyncConnection[Any]") -> None:
    """End what waits for an answer, with OperationalError. A cancellation would wait for an answer, too."""
    with suppress(OperationalError, OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as lost:
        lost.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def own_connection(**parameters: Any) -> "AsyncIterator[AsyncConnection[Any]]":
    """A connection outside the pool, without prepared statements; `parameters` go to libpq.

    Raises OperationalError where none can be opened.
    """
    connection = await AsyncConnection.connect(
        **connection_parameters() | {"prepare_threshold": None} | parameters
    )
    try:
        with in_time(connection):
            await verify(connection)
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _djangos() -> AsyncIterator["AsyncConnection[Any]"]:
    """Django's own connection, for the event loop: libpq has one state of it, whoever speaks."""

    def borrow() -> tuple[Any, bool]:
        was_open = djangos.connection is not None
        with djangos.cursor() as cursor:
            cursor.execute("")  # by which Django's transaction begins, if it is in one
        return djangos.connection.pgconn, was_open

    pgconn, was_open = await sync_to_async(borrow)()
    connection: Any = AsyncConnection(pgconn)
    if pgconn.transaction_status == TransactionStatus.IDLE:
        await connection.set_autocommit(True)
    try:
        yield connection
    finally:
        del connection.pgconn  # which it would miss to close
        if not was_open:
            await sync_to_async(djangos.close)()
