"""The native async pool: a few connections a worker for the statements that requests run.

psycopg_pool opens, replaces and retires the connections. This pool borrows them from it for minutes, so that a
request only takes one off a list: its checkout costs 1 us where `AsyncConnectionPool.connection()` costs 20. All
waits are bounded, in time and in number.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from psycopg import AsyncConnection, OperationalError
from psycopg.pq.abc import PGresult
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from ops.instruments.metrics import metrics
from ops.instruments.stopwatch import DB, QUEUE
from ops.postgres import through_django
from ops.postgres.connection import Connection, ConnectionLost, NoAnswer
from ops.postgres.options import PoolOptions
from ops.postgres.statement import Statement

logger = logging.getLogger(__name__)

WATCH = 0.5  # seconds between two looks at what takes too long

CHECKOUTS = metrics.counter(
    "postgres_pool_checkouts_total", "Requests for a connection of the pool.", "pool", "outcome"
)
TAKEN, TIMED_OUT, REFUSED, LOST = (
    CHECKOUTS.labels("native", outcome) for outcome in ("ok", "timeout", "refused", "lost")
)
SHED = metrics.counter(
    "http_requests_shed_total", "Requests refused so that the others are served.", "reason"
).labels("pool")
# Most wait for nothing: those are counted in the first bucket without looking at a clock.
WAITS = metrics.histogram(
    "postgres_pool_wait_seconds", "Until the pool had a connection or none to give.", "pool"
).labels("native")


class Pool:
    """Belongs to one event loop: open and close it there."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []  # the last used is taken first: few connections stay warm
        self.waiting: deque[asyncio.Future[Connection]] = deque()
        self.borrowed: dict[Connection, float] = {}  # since when, in loop time
        self._source: AsyncConnectionPool[AsyncConnection[Any]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._borrowing: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open the pool and borrow a first connection. A database that is down is no error here, only a delay."""
        self._loop = asyncio.get_running_loop()
        self._options: PoolOptions = settings.NATIVE_POOL
        self._source = AsyncConnectionPool(
            kwargs=_parameters(),
            min_size=1,
            max_size=self._options.max_size,
            check=_check,
            timeout=self._options.connect_timeout,
            max_lifetime=self._options.max_lifetime,
            reconnect_timeout=self._options.reconnect_timeout,
            open=False,
            name="native",
        )
        await self._source.open()
        self._watching = self._loop.create_task(self._watch())
        await self._borrow()

    async def close(self) -> None:
        """Close the pool; whoever waits in it, for a connection or an answer, gets an OperationalError."""
        source, self._source = self._source, None
        if not source:
            return
        self._watching.cancel()
        for turn in self.waiting:
            if not turn.done():
                turn.set_exception(PoolClosed("the pool is closed"))
        self.waiting.clear()
        lost = [*self.borrowed]
        for connection in lost:
            connection.lose(ConnectionLost("the pool is closed"))
        await source.close()
        for connection in lost:
            await source.putconn(connection.source)  # which a closed pool closes
        await asyncio.gather(self._watching, *self._tasks, return_exceptions=True)

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a read. Raises psycopg.OperationalError where Postgres, or the queue for it, is not up to it.

        A read whose connection was lost under it runs once more, on another.
        """
        try:
            return await self._execute(statement, parameters)
        except ConnectionLost:
            if not self._source:
                raise  # the pool was closed
            return await self._execute(statement, parameters)

    async def _execute(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        if self.idle:
            connection = self.idle.pop()
            WAITS.counts[0] += 1
        else:
            with QUEUE:
                connection = await self._queue()
        try:
            with DB:
                return await connection.execute(statement, parameters)
        except NoAnswer:
            raise
        except OperationalError as error:
            if not connection.broken:
                raise
            lost = ConnectionLost(str(error))
            connection.lose(lost)
            raise lost from error
        finally:
            (LOST if connection.lost else TAKEN).value += 1
            connection.release()

    async def _queue(self) -> Connection:
        began = perf_counter()
        try:
            return await self._wait()
        except PoolTimeout:
            TIMED_OUT.value += 1
            raise
        except TooManyRequests:
            REFUSED.value += 1
            SHED.value += 1
            raise
        finally:
            WAITS.observe(perf_counter() - began)

    async def _wait(self) -> Connection:
        """Wait for a connection that another request gives back, or for a new one."""
        if not self._source:
            await self.open()
            if self.idle:
                return self.idle.pop()
        if len(self.waiting) >= self._options.max_waiting:
            raise TooManyRequests(f"{len(self.waiting)} requests wait for a connection already")
        turn: asyncio.Future[Connection] = self._loop.create_future()
        self.waiting.append(turn)
        self._grow()
        expiry = self._loop.call_later(
            self._options.timeout, self._expire, turn
        )  # a third of asyncio.timeout's cost
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in self.waiting:  # _give may have passed it over
                    self.waiting.remove(turn)
            elif not turn.exception():  # it was given a connection just then
                turn.result().release()
            raise
        finally:
            expiry.cancel()

    def _expire(self, turn: "asyncio.Future[Connection]") -> None:
        if not turn.done():
            self.waiting.remove(turn)
            turn.set_exception(PoolTimeout(f"no connection within {self._options.timeout} s"))

    def _grow(self) -> None:
        """Borrow one more connection, unless the pool has as many as it may."""
        if len(self.borrowed) + len(self._borrowing) < self._options.max_size:
            self._run(self._borrow(), self._borrowing)

    async def _borrow(self) -> None:
        """Take a connection from psycopg's pool and give it to whoever waits longest."""
        if not (source := self._source):
            return
        try:
            opened = await source.getconn()
        except OperationalError as error:
            if source is self._source:
                logger.warning("no database connection: %s", error)
            return
        if source is not self._source:  # closed meanwhile
            await source.putconn(opened)
            return
        connection = Connection(opened, self._give, self._return, prepare=self._options.prepare)
        self.borrowed[connection] = self._loop.time()
        self._give(connection)

    def _give(self, connection: Connection) -> None:
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self.idle.append(connection)

    def _return(self, connection: Connection) -> None:
        """Give a lost or long borrowed connection back to psycopg's pool, which replaces what is broken or old."""
        del self.borrowed[connection]
        if connection in self.idle:
            self.idle.remove(connection)
        if self._source:
            self._run(self._source.putconn(connection.source))
            if self.waiting:
                self._grow()

    async def _watch(self) -> None:
        """Give up connections whose statement takes too long, and return those borrowed long ago."""
        while True:
            await asyncio.sleep(WATCH)
            now = self._loop.time()
            for connection, since in [*self.borrowed.items()]:
                if connection.busy and now - connection.started > self._options.deadline:
                    connection.lose(NoAnswer("no answer from Postgres in time"))
                    await connection.source.close()
                elif connection in self.idle and now - since > self._options.borrow:
                    connection.lose(ConnectionLost("borrowed long enough"))

    def _run(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]] | None = None) -> None:
        """Run `work` beside the requests; a task is kept until it ends."""
        task = self._loop.create_task(work)
        for kept in (self._tasks, tasks):
            if kept is not None:
                kept.add(task)
                task.add_done_callback(kept.discard)


def _parameters() -> dict[str, Any]:
    """The libpq parameters of Django's default connection, for connections without transactions."""
    parameters = connections["default"].get_connection_params()
    own = ("cursor_factory", "context", "prepare_threshold", "server_side_binding")
    return {name: value for name, value in parameters.items() if name not in own} | {"autocommit": True}


async def _check(source: AsyncConnection[Any]) -> None:
    """Raises OperationalError if the server has hung up; asks it nothing, since a frozen one would not answer."""
    source.pgconn.consume_input()


class DjangoPool(Pool):
    """The same statements on Django's connection, where the instruments of development listen."""

    async def open(self) -> None:
        """Django opens its connections itself."""

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a read in the request's thread."""
        return await sync_to_async(through_django.fetch)(statement, parameters)


pool: Pool = DjangoPool() if settings.INSTRUMENTED else Pool()


@asynccontextmanager
async def open_pool() -> AsyncIterator[None]:
    """The pool, open: for the lifespan of a worker."""
    await pool.open()
    try:
        yield
    finally:
        await pool.close()
