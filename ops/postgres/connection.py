"""One connection of the native pool, spoken to through libpq itself.

psycopg opens it, with all that belongs to that: TLS, authentication, time-outs. A query then goes straight through
psycopg.pq, with a reader that stays on the event loop: 20 us of CPU a query, where psycopg's cursor takes 46 and its
pool another 10. Between queries the same reader notices at once when the server hangs up.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, OperationalError, errors
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from ops.postgres.statement import Statement


class ConnectionLost(OperationalError):
    """The connection went away; what ran on it may or may not have had an effect."""


class NoAnswer(OperationalError):
    """The server was silent for too long: to ask again would make the caller wait as long once more."""


# Statements that a connection keeps prepared, as psycopg does; each takes memory in the backend.
MOST_PREPARED = 100
# The prepared statement has gone or no longer fits the tables: a migration ran, or someone deallocated it.
STALE = (errors.FeatureNotSupported, errors.InvalidSqlStatementName)

# What is prepared on psycopg's connections, by last use. They outlive the Connection that borrows them.
_prepared: WeakKeyDictionary[AsyncConnection[Any], OrderedDict[bytes, None]] = WeakKeyDictionary()


class Connection:
    """Runs one statement at a time.

    `on_idle` is called when it is free again after `release`, `on_lost` once, when it has become useless.
    """

    def __init__(
        self,
        source: AsyncConnection[Any],
        on_idle: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        *,
        prepare: bool,
    ) -> None:
        self.source = source
        self.lost = False
        self.started = 0.0  # loop time at which the statement under way began
        self._prepare = prepare
        self._on_idle, self._on_lost = on_idle, on_lost
        self._pq = source.pgconn
        self._socket = self._pq.socket
        self._prepared = _prepared.setdefault(source, OrderedDict())
        self._answer: asyncio.Future[PGresult] | None = None  # of the round trip under way
        self._result: PGresult | None = None
        self._released = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    @property
    def busy(self) -> bool:
        return self._answer is not None

    async def execute(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a statement in one round trip, the first time in two. Raises psycopg's errors.

        A cancelled caller leaves the statement to its end, which statement_timeout bounds.
        """
        self.started = self._loop.time()
        if not self._prepare:
            self._pq.send_query_params(statement.sql, parameters)
            return await self._sent()
        if statement.name in self._prepared:
            self._prepared.move_to_end(statement.name)
        else:
            await self._make_ready(statement)
        self._pq.send_query_prepared(statement.name, parameters)
        try:
            return await self._sent()
        except STALE:
            await self._deallocate(statement.name)
        await self._make_ready(statement)
        self._pq.send_query_prepared(statement.name, parameters)
        return await self._sent()

    def release(self) -> None:
        """The caller is done with it."""
        if self.lost:
            return
        if self._answer is None:
            self._on_idle(self)
        else:
            self._released = True

    @property
    def broken(self) -> bool:
        return self.lost or self._pq.status != ConnStatus.OK

    def lose(self, error: OperationalError) -> None:
        """Give the connection up; whoever waits for an answer gets the error."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        answer, self._answer = self._answer, None
        if answer and not answer.done():
            answer.set_exception(error)
        self._on_lost(self)

    async def _make_ready(self, statement: Statement) -> None:
        if len(self._prepared) >= MOST_PREPARED:
            await self._deallocate(next(iter(self._prepared)))
        self._prepared[statement.name] = None  # also if the caller is cancelled meanwhile
        self._pq.send_prepare(statement.name, statement.sql)
        try:
            await self._sent()
        except Exception:
            del self._prepared[statement.name]
            raise

    async def _deallocate(self, name: bytes) -> None:
        """Through the protocol, which PgBouncer understands, and which minds no name that is unknown."""
        self._prepared.pop(name, None)
        self._pq.send_close_prepared(name)
        await self._sent()

    def _sent(self) -> "asyncio.Future[PGresult]":
        """The answer to what was just sent."""
        if self._pq.flush():
            self._loop.add_writer(self._socket, self._write)
        self._answer = answer = self._loop.create_future()
        return answer

    def _error(self, result: PGresult | None) -> Exception:
        if result is None:
            return OperationalError("Postgres ended the query without a result")
        error = error_from_result(result)
        if isinstance(error, OperationalError) and (error.sqlstate or "").startswith("57P"):  # it shuts down
            self.lose(ConnectionLost(str(error)))
        return error

    def _write(self) -> None:
        try:
            if not self._pq.flush():
                self._loop.remove_writer(self._socket)
        except OperationalError as error:
            self.lose(ConnectionLost(str(error)))

    def _read(self) -> None:
        try:
            self._pq.consume_input()
            if self._answer is None:
                return  # a notice; or the server's farewell, whose end is read next
            while not self._pq.is_busy():
                result = self._pq.get_result()
                if result is None:
                    self._finish()
                    return
                self._result = result
        except OperationalError as error:
            self.lose(ConnectionLost(str(error)))

    def _finish(self) -> None:
        answer, self._answer = self._answer, None
        result, self._result = self._result, None
        if self._released:
            self._released = False
            self._on_idle(self)
        elif not answer or answer.done():
            pass  # its caller was cancelled and is about to release the connection
        elif result is None or result.status == ExecStatus.FATAL_ERROR:
            answer.set_exception(self._error(result))
        else:
            answer.set_result(result)
