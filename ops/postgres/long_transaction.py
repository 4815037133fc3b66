"""One transaction on a connection of its own, for work that takes longer than a request's statements may.

A worker has few connections in its native pool, for quick statements: a transaction that waits for a client needs
one of its own. The caller has to limit the number of these connections; the connection budget counts them.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection as django_connection
from psycopg import AsyncConnection, OperationalError
from psycopg.pq import TransactionStatus
from psycopg_pool import TooManyRequests

from ops.postgres.connection import OutcomeUnknown, is_lost
from ops.postgres.health import ask_postgres
from ops.postgres.pool import Busy, connection_parameters, pools
from ops.postgres.session import verify
from ops.tasks import end

LOCK_SECONDS = 5  # longest wait for a lock; a request gives up after half a second
# Seconds for which data may stay unacknowledged. A request gives up after 5, but Postgres may stop reading for that
# long while it writes a checkpoint.
ACKNOWLEDGED_SECONDS = 30
ASK_SECONDS = 1.0  # between two questions to Postgres, while the transaction is open
SILENT_SECONDS = 15.0  # without an answer to them, until the connection is cut
COMMIT_SECONDS = 60.0  # without an answer to the commit, until the connection is cut


class LongTransaction:
    """A transaction. Run its statements on `connection`, savepoints by `connection.transaction()`, then `commit`."""

    def __init__(self, connection: "AsyncConnection[Any]") -> None:
        self.connection = connection
        # If Django's connection is in a transaction already, as in a test, this one is a savepoint.
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
        # The session's own limits are for requests. SET LOCAL: a pooler may run each transaction in another session.
        idle = 2 * settings.STREAM_PATIENCE_SECONDS  # a silent client is refused after half of that
        await self.connection.execute(
            f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{LOCK_SECONDS}s'; "
            f"SET LOCAL idle_in_transaction_session_timeout = '{idle:g}s'; "
            "SET CONSTRAINTS ALL IMMEDIATE"  # a deferred check would wait in memory, and fail the commit
        )

    async def commit(self) -> None:
        """Commit, or release the savepoint.

        Raises OutcomeUnknown if the connection is lost during the COMMIT, or gives no answer for COMMIT_SECONDS;
        another OperationalError if it was lost before, or if Postgres refuses the COMMIT.
        """
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
        """Roll back, unless `commit` or `rollback` was called before."""
        if self._is_open:
            self._is_open = False
            await self.connection.execute(self._rollback)


@asynccontextmanager
async def long_transaction() -> AsyncIterator[LongTransaction]:
    """Begin a long transaction. It is rolled back at the end of the block, unless the block has committed it.

    Raises OperationalError if Postgres cannot be reached. The transaction's own connection is closed at the end of
    the block: so nothing is left of the transaction, even if the server cannot be told. Where no native pool is open,
    it runs on Django's connection, as every other statement does.
    """
    if asyncio.get_running_loop() not in pools:
        async with _lend_django_connection() as connection:
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
    """Cut the connection once Postgres, frozen, say, has not answered the pool either for SILENT_SECONDS.

    A statement may take an hour, so silence on `connection` proves nothing. Every ASK_SECONDS a quick statement asks
    Postgres through the pool; an error of a pool that is busy counts as an answer.
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
    cut(connection)


@contextmanager
def in_time(connection: "AsyncConnection[Any]", seconds: float | None = None) -> Iterator[None]:
    """Cut the connection if the block takes longer than `seconds`, by default NATIVE_POOL.deadline.

    The statement under way then raises OperationalError. A connection may open and still get no answer: PgBouncer
    accepts connections while the Postgres behind it is frozen. A cancellation is no help, since psycopg waits for the
    answer to that as well.
    """
    seconds = settings.NATIVE_POOL.deadline if seconds is None else seconds
    timer = asyncio.get_running_loop().call_later(seconds, cut, connection)
    try:
        yield
    finally:
        timer.cancel()


def cut(connection: "AsyncConnection[Any]") -> None:
    """Shut the socket down, which ends a waiting statement with OperationalError.

    A cancellation would wait for an answer, too.
    """
    with suppress(OperationalError, OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as lost:
        lost.shutdown(socket.SHUT_RDWR)


@asynccontextmanager
async def own_connection(**parameters: Any) -> "AsyncIterator[AsyncConnection[Any]]":
    """Open a connection outside the pool for the block, without prepared statements; `parameters` go to libpq.

    Raises OperationalError if it cannot be opened, or `verify` refuses it.
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
async def _lend_django_connection() -> AsyncIterator["AsyncConnection[Any]"]:
    """Lend Django's own connection to the event loop: an AsyncConnection with the same connection of libpq."""

    def borrow() -> tuple[Any, bool]:
        was_open = django_connection.connection is not None
        with django_connection.cursor() as cursor:
            cursor.execute("")  # has psycopg send BEGIN, if Django is in a transaction
        return django_connection.connection.pgconn, was_open

    pgconn, was_open = await sync_to_async(borrow)()
    connection: Any = AsyncConnection(pgconn)
    if pgconn.transaction_status == TransactionStatus.IDLE:
        await connection.set_autocommit(True)
    try:
        yield connection
    finally:
        del connection.pgconn  # else psycopg would warn that it was not closed
        if not was_open:
            await sync_to_async(django_connection.close)()
