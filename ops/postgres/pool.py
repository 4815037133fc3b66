"""The native async pool: a few connections a worker for the statements that requests run.

psycopg_pool opens, replaces and retires the connections. This pool borrows them from it for minutes, so that a
request only takes one off a list: its checkout costs 1 us where `AsyncConnectionPool.connection()` costs 20. All
waits are bounded, in time and in number.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any, ClassVar, Protocol, cast

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections
from psycopg import AsyncConnection, OperationalError
from psycopg.pq.abc import PGresult
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from ops.postgres import through_django
from ops.postgres.checkouts import CHECKOUTS, PIPES, SHED, WAITS, recent_waits
from ops.postgres.connection import Call, Connection, ConnectionLost, ResponseTimeout
from ops.postgres.options import PoolOptions
from ops.postgres.session import verify
from ops.postgres.statement import Statement
from ops.telemetry.stopwatch import DB, QUEUE

logger = logging.getLogger(__name__)

WATCH_INTERVAL_SECONDS = 0.1  # between two looks at statements that take too long
# Until psycopg_pool is asked again for a connection to a server that is away. It tries each second or two itself.
PROBE_SECONDS = 0.5
HELD_UP_SECONDS = 0.005  # that Postgres takes for a batch, until new statements avoid the connection

TAKEN, TIMED_OUT, REFUSED, LOST, AWAY = (
    CHECKOUTS.labels("native", outcome) for outcome in ("ok", "timeout", "refused", "lost", "away")
)
ROLLBACK = Statement("ROLLBACK", (), repeatable=False)
WAITED = WAITS.labels("native")  # most requests do not wait: they are counted without looking at a clock
PIPED = PIPES.labels("native")


class Busy(PoolTimeout):
    """All connections had work for as long as a request may wait for one. Nothing was sent."""


class Unreachable(PoolTimeout):
    """No connection can be opened. Nothing was sent."""


class Lane:
    """Statements of a kind: quick ones, other reads, writes. Each has its own queue and choice of connections."""

    def __init__(self) -> None:
        self.places: Sequence[int] = ()  # of its connections, the first choice first
        self.waiting: deque[Call] = deque()


class Pool:
    """Belongs to one event loop: open and close it there.

    Quick statements share the first connection, up to a depth. While it is full, or held up by a statement that takes
    long, they go to the next ones, but never to the last of those for reads. Any other statement has a connection to
    itself while it runs, never the first: a read one of those for reads, the last first; a write also one after them.
    A pool of one connection uses it for all. A lost connection is returned to psycopg_pool, which opens another.

    | the server   | a request without a connection       | next                                                   |
    | ------------ | ------------------------------------ | ------------------------------------------------------ |
    | is there     | waits, for a bounded time            | away, once one has waited in vain and there is no      |
    |              |                                      | connection at all                                      |
    | is away      | is refused at once: Unreachable      | there, once a connection opens: it is tried each       |
    |              |                                      | second or two                                          |
    """

    def __init__(self) -> None:
        self.borrowed: dict[Connection, float] = {}  # with the loop time at which each was borrowed
        self._places: list[Connection | None] = []  # the same connections, each in its place
        self._borrowing: set[int] = set()  # places that get a connection
        self._exclusive: set[Connection] = set()  # connections that a call has to itself
        self._leased: set[Connection] = set()  # and those that a transaction has
        self._quick, self._slow, self._writes = self._lanes = Lane(), Lane(), Lane()
        self._rescue_due: asyncio.TimerHandle | None = None
        self._is_away = False  # whether the server cannot be reached
        self._source: AsyncConnectionPool[AsyncConnection[Any]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> list[Connection]:
        """The connections on which nothing is under way."""
        return [each for each in self.borrowed if each.is_idle and each not in self._leased]

    @property
    def waiting(self) -> list[Call]:
        """The calls that have no connection yet."""
        return [call for lane in self._lanes for call in lane.waiting]

    async def open(self) -> None:
        """Open the pool and borrow a first connection. A database that is down is no error here, only a delay."""

        async def check(source: AsyncConnection[Any]) -> None:
            """Raises OperationalError if the server has hung up. Sends nothing: a frozen server would not answer."""
            source.pgconn.consume_input()

        self._loop = asyncio.get_running_loop()
        self._options: PoolOptions = settings.NATIVE_POOL
        self._places = [None] * self._options.max_size
        last = min(self._options.readers, self._options.max_size) - 1
        self._quick.places = range(last or 1)
        self._slow.places = range(last, min(last, 1) - 1, -1)
        self._writes.places = (*range(last, len(self._places)), *self._slow.places[1:])
        self._source = _psycopg_pool(check=check, timeout=self._options.connect_timeout)
        await self._source.open()
        self._watching = self._loop.create_task(self._watch())
        self._borrowing.add(0)
        await self._borrow(0)

    async def close(self) -> None:
        """Close the pool; requests that wait in it, for a connection or a result, get an OperationalError."""
        source, self._source = self._source, None
        if not source:
            return
        self._watching.cancel()
        if self._rescue_due:
            self._rescue_due.cancel()
            self._rescue_due = None
        for call in self.waiting:
            if not call.future.done():
                call.future.set_exception(PoolClosed("the pool is closed"))
        lost = [*self.borrowed]
        for connection in lost:
            connection.fail(ConnectionLost("the pool is closed"))
        await source.close()
        for connection in lost:
            await source.putconn(connection.source)  # which a closed pool closes
        await asyncio.gather(self._watching, *self._tasks, return_exceptions=True)

    def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> Awaitable[PGresult]:
        """Run a statement. Raises psycopg.OperationalError where Postgres, or the queue for it, cannot answer.

        A repeatable one whose connection is lost meanwhile runs once more, on another.
        """
        return self._fetch(statement, parameters)

    async def lease(self, begin: Statement) -> "Lease":
        """A connection for a transaction, which `begin` has begun. Raises as `fetch`."""
        lease = Lease(self)
        try:
            await self._fetch(begin, (), lease)
        except BaseException:
            lease.end(ROLLBACK)
            raise
        return lease

    async def _fetch(
        self, statement: Statement, parameters: Sequence[bytes | None], lease: "Lease | None" = None
    ) -> PGresult:
        began = now = perf_counter()
        is_retry = False
        while True:
            call = Call(statement, parameters, self._loop.create_future(), now)
            call.lease, call.only_proven = lease, is_retry
            lane = self._lane(call)
            # A call that has lost its connection waits for a better one than others need: they go before it.
            is_free = not lane.waiting or all(each.only_proven for each in lane.waiting)
            connection = self._find(lane, now, call) if is_free else None
            expiry, was_away = None, False
            try:
                with DB:
                    if connection:
                        WAITED.counts[0] += 1
                        self._send(connection, call, now)
                    else:
                        was_away = not self.borrowed
                        expiry = self._enqueue(lane, call)
                    return await call.future
            except ConnectionLost:
                if is_retry or not statement.repeatable or not self._source:
                    raise
                is_retry, now = True, perf_counter()
                if now - began > self._options.deadline:
                    raise
            finally:
                if expiry or call.started > call.since:
                    self._end_wait(call, lane, expiry, was_away=was_away)
                elif call.connection:
                    PIPED.counts[0] += 1
                if call.connection:
                    (LOST if call.connection.is_lost else TAKEN).value += 1

    def _end_wait(
        self, call: Call, lane: Lane, expiry: asyncio.TimerHandle | None, *, was_away: bool
    ) -> None:
        """Count what a call has waited, for a connection and on it."""
        if expiry:
            expiry.cancel()
            if not call.connection:  # timed out, cancelled, or the pool was closed
                call.started = perf_counter()
                lane.waiting.remove(call)
            WAITED.observe((call.sent if call.connection else call.started) - call.since)
        if call.connection:
            PIPED.observe(call.started - call.sent)
        if call.statement.quick and not was_away:
            recent_waits.add(call.started - call.since)
        QUEUE.take_from(DB, call.since, call.started)

    def load(self) -> tuple[int, int, int]:
        """Connections that are idle and that are busy, and requests that wait for one."""
        idle = len(self.idle)
        return idle, len(self.borrowed) - idle, len(self.waiting)

    def _lane(self, call: Call) -> Lane:
        """The queue of a call. One that begins a transaction counts as a write."""
        if call.statement.quick:
            return self._quick
        return self._slow if call.statement.repeatable and not call.lease else self._writes

    def _find(self, lane: Lane, now: float, call: Call) -> Connection | None:
        """A connection that can take the call at once. Where there is none, another is borrowed if it may be.

        A call that lost its connection gets only one that has answered since then, or is new.
        """
        has_grown = False
        for place in lane.places:
            connection = self._places[place]
            if connection is None:
                if not has_grown:
                    has_grown = True
                    self._grow(place)
            elif call.only_proven and connection.proven < call.since:
                continue
            elif not connection.load:
                if connection not in self._leased:
                    return connection
            elif (
                lane is self._quick
                and connection.load < self._options.depth
                and now - connection.since < HELD_UP_SECONDS
                and connection not in self._exclusive
            ):
                return connection
        return None

    def _send(self, connection: Connection, call: Call, now: float) -> None:
        call.connection = connection
        call.sent = call.started = now
        if not call.statement.quick:
            self._exclusive.add(connection)
        if call.lease:
            call.lease.connection = connection
            self._leased.add(connection)
        connection.send(call)
        if connection.load > 1:
            self._plan_rescue()

    def _rescue(self) -> None:
        """Run calls that are held up on one connection again, on an idle one. Where none is idle, nothing is sent.

        The first connection runs them, too: what it answers then is dropped.
        """
        self._rescue_due = None
        now = perf_counter()
        shared = [each for each in self.borrowed if each.load > 1 and each not in self._leased]
        for connection in shared:
            if now - connection.since < HELD_UP_SECONDS:
                continue
            first = connection.calls()[0]
            other = self._find(self._lane(first), now, first)
            if not other or other.load:
                continue
            for call in connection.sent()[1:]:
                if call.statement.repeatable and not call.future.done():
                    connection.withdraw(call)
                    self._send(other, call, now)
        if shared:
            self._plan_rescue()

    def _plan_rescue(self) -> None:
        if not self._rescue_due:
            self._rescue_due = self._loop.call_later(HELD_UP_SECONDS, self._rescue)

    def _enqueue(self, lane: Lane, call: Call) -> asyncio.TimerHandle:
        """Let the call wait until a connection can take it, for a bounded time. Raises psycopg_pool's errors."""
        if not self._source:
            raise PoolClosed("the pool is closed")
        if self._is_away:
            AWAY.value += 1
            raise Unreachable("the database is away")
        waiting = len(self.waiting)
        if waiting >= self._options.max_waiting:
            REFUSED.value += 1
            SHED.value += 1
            raise TooManyRequests(f"{waiting} requests wait for a connection already")
        lane.waiting.append(call)

        def expire() -> None:
            if not call.connection and not call.future.done():
                TIMED_OUT.value += 1
                error = Busy if self.borrowed else Unreachable
                if self.borrowed:
                    SHED.value += 1
                elif not self._is_away:
                    self._is_away = True  # without a connection the next ones need not wait
                    logger.warning("the database is away: requests that need it are refused")
                call.future.set_exception(error(f"no connection within {self._options.timeout} s"))

        return self._loop.call_later(self._options.timeout, expire)  # a third of asyncio.timeout's cost

    def _serve(self) -> None:
        """Send calls that wait, in turn, as far as connections can take them."""
        now = perf_counter()
        for lane in self._lanes:
            for call in [*lane.waiting]:
                # Its caller is about to take it out of the queue, or a loss under _send has had it served.
                if call.future.done() or call.connection:
                    continue
                if connection := self._find(lane, now, call):
                    lane.waiting.remove(call)
                    self._send(connection, call, now)
                elif not call.only_proven:
                    break

    def _progress(self, connection: Connection) -> None:
        """Results have come."""
        if self._exclusive and not connection.load and connection not in self._leased:
            self._exclusive.discard(connection)
        if self._quick.waiting or self._slow.waiting or self._writes.waiting:
            self._serve()

    def take_back(self, connection: Connection) -> None:
        """The transaction on a leased connection has ended: others may have it."""
        if connection in self._leased:
            self._leased.discard(connection)
            self._progress(connection)

    def _grow(self, place: int) -> None:
        """Borrow a connection for a place."""
        if self._source and place not in self._borrowing:
            self._borrowing.add(place)
            task = self._loop.create_task(self._borrow(place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _borrow(self, place: int) -> None:
        """Take a connection from psycopg_pool and put it to use."""
        try:
            if not (source := self._source):
                return
            opened = await source.getconn()
            if source is not self._source:  # closed meanwhile
                await source.putconn(opened)
                return
            connection = Connection(
                opened, on_progress=self._progress, on_lost=self._give_back, prepare=self._options.prepare
            )
            self.borrowed[connection] = self._loop.time()
            self._places[place] = connection
            if self._is_away:
                self._is_away = False
                logger.warning("the database is back")
        except OperationalError as error:
            if self._source and not self._is_away:
                logger.warning("no database connection: %s", error)
        finally:
            self._borrowing.discard(place)
        self._serve()

    def _give_back(self, connection: Connection) -> None:
        """Return a lost connection to psycopg_pool, which replaces a broken or old one."""
        del self.borrowed[connection]
        self._places[self._places.index(connection)] = None
        self._exclusive.discard(connection)
        self._leased.discard(connection)
        if self._source:
            task = self._loop.create_task(self._replace(self._source, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._serve()

    async def _replace(
        self, source: "AsyncConnectionPool[AsyncConnection[Any]]", connection: Connection
    ) -> None:
        """Return a connection, and with a broken one all idle ones: who ended it may have ended them.

        A read that was on it runs once more, and would be lost for good on one of those.
        """
        if not connection.is_usable:
            await source.drain()
        await source.putconn(connection.source)

    async def _watch(self) -> None:
        """Fail calls and connections that wait too long for a result, and return connections borrowed long ago.

        Look whether a server that is away has come back.
        """
        probed = 0.0
        while True:
            await asyncio.sleep(WATCH_INTERVAL_SECONDS)
            now, deadline = perf_counter(), self._options.deadline
            if self._is_away and now - probed >= PROBE_SECONDS:
                probed = now
                self._grow(0)
            for connection, since in [*self.borrowed.items()]:
                if connection.is_idle:
                    if self._loop.time() - since > self._options.borrow and connection not in self._leased:
                        connection.fail(ConnectionLost("borrowed long enough"))
                    continue
                for call in connection.calls():
                    if now - call.since > deadline and not call.future.done():
                        call.future.set_exception(ResponseTimeout("no answer from Postgres in time"))
                if now - connection.since > deadline:
                    connection.fail(ConnectionLost("no answer from Postgres in time"))
                    await connection.source.close()


class Lease:
    """A connection of the pool for one transaction. Statements on it run in their order, and none is run again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.connection: Connection | None = None  # until BEGIN is sent

    @property
    def is_lost(self) -> bool:
        return not self.connection or self.connection.is_lost

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a statement. Raises psycopg's errors; ConnectionLost means that the transaction has had no effect."""
        with DB:
            return await self._send(statement, parameters)

    def end(self, statement: Statement) -> asyncio.Future[PGresult]:
        """Send COMMIT or ROLLBACK, behind what is under way. With its result the pool has the connection back."""

        def take_back(ended: asyncio.Future[PGresult]) -> None:
            if not ended.cancelled():
                ended.exception()  # no news for the log if nobody waits for it
            if self.connection:
                self._pool.take_back(self.connection)

        ended = self._send(statement, ())
        ended.add_done_callback(take_back)
        return ended

    def _send(self, statement: Statement, parameters: Sequence[bytes | None]) -> asyncio.Future[PGresult]:
        now = perf_counter()
        future: asyncio.Future[PGresult] = asyncio.get_running_loop().create_future()
        connection = self.connection
        if not connection or connection.is_lost:
            future.set_exception(ConnectionLost("the connection of the transaction is lost"))
            return future
        call = Call(statement, parameters, future, now)
        call.connection, call.alone, call.is_last_attempt = connection, True, True
        connection.send(call)
        return future


class StockPool:
    """psycopg's pool and cursors as they come, with the limits of settings.NATIVE_POOL: RUNTIME=stock.

    A read whose connection is lost fails, and one that a frozen server holds up ends with its TCP connection.
    """

    async def open(self) -> None:
        """Open the pool. A database that is down is no error here, only a delay."""
        options: PoolOptions = settings.NATIVE_POOL
        self._source = _psycopg_pool(
            max_waiting=options.max_waiting,
            timeout=options.timeout,
            prepare_threshold=5 if options.prepare else None,
        )
        await self._source.open()

    async def close(self) -> None:
        await self._source.close()

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a read. Raises psycopg.OperationalError where Postgres, or the queue for it, is not up to it."""
        values = [None if text is None else text.decode() for text in parameters]
        async with AsyncExitStack() as stack:
            with _checkout():
                connection = await stack.enter_async_context(self._source.connection())
            with DB:
                cursor = await connection.execute(statement.template, values)
        return cast("PGresult", cursor.pgresult)

    async def lease(self, begin: Statement) -> "StockLease":
        """A connection for a transaction, which `begin` has begun. Raises as `fetch`."""
        with _checkout():
            lease = StockLease(self._source, await self._source.getconn())
        try:
            await lease.fetch(begin, ())
        except BaseException:
            lease.end(ROLLBACK)
            raise
        return lease

    def load(self) -> tuple[int, int, int]:
        """Connections that are idle and that are busy, and requests that wait for one."""
        stats = self._source.get_stats()
        idle = stats["pool_available"]
        return idle, stats["pool_size"] - idle, stats["requests_waiting"]


@contextmanager
def _checkout() -> Iterator[None]:
    """Count a checkout from psycopg's pool, and what it has waited."""
    began = perf_counter()
    try:
        with QUEUE:
            yield
    except PoolTimeout:  # whether the pool is full or the server away, it does not say
        TIMED_OUT.value += 1
        raise
    except TooManyRequests:
        REFUSED.value += 1
        SHED.value += 1
        raise
    finally:
        WAITED.observe(perf_counter() - began)
    TAKEN.value += 1


class StockLease:
    """As Lease, by psycopg's cursors."""

    _ending: ClassVar[set[asyncio.Task[PGresult]]] = set()  # a loop keeps no reference to a task

    def __init__(
        self, source: "AsyncConnectionPool[AsyncConnection[Any]]", connection: AsyncConnection[Any]
    ) -> None:
        self._source, self._connection = source, connection

    @property
    def is_lost(self) -> bool:
        return self._connection.closed

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """As Lease's."""
        values = [None if text is None else text.decode() for text in parameters]
        try:
            with DB:
                cursor = await self._connection.execute(statement.template, values)
        except OperationalError as error:
            if self._connection.closed:
                raise ConnectionLost(str(error)) from error
            raise
        return cast("PGresult", cursor.pgresult)

    def end(self, statement: Statement) -> asyncio.Future[PGresult]:
        """As Lease's."""

        def forget(task: asyncio.Task[PGresult]) -> None:
            self._ending.discard(task)
            if not task.cancelled():
                task.exception()

        task = asyncio.get_running_loop().create_task(self._end(statement))
        self._ending.add(task)
        task.add_done_callback(forget)
        return task

    async def _end(self, statement: Statement) -> PGresult:
        try:
            return await self.fetch(statement, ())
        finally:
            await self._source.putconn(self._connection)


def _psycopg_pool(
    *,
    timeout: float,
    check: "Callable[[AsyncConnection[Any]], Awaitable[None]] | None" = None,
    max_waiting: int = 0,
    **parameters: Any,
) -> "AsyncConnectionPool[AsyncConnection[Any]]":
    """Psycopg's pool with the sizes and times of settings.NATIVE_POOL, not open yet.

    `parameters` go to libpq beside those of Django's default connection; there are no transactions.
    """
    options: PoolOptions = settings.NATIVE_POOL
    return AsyncConnectionPool(
        kwargs=connection_parameters() | parameters,
        min_size=1,
        max_size=options.max_size,
        max_waiting=max_waiting,
        configure=verify,
        check=check,
        timeout=timeout,
        max_lifetime=options.max_lifetime,
        reconnect_timeout=options.reconnect_timeout,
        open=False,
        name="native",
    )


def connection_parameters() -> dict[str, Any]:
    """Those of Django's default connection for libpq, and no transactions of psycopg's."""
    django = connections["default"].get_connection_params()
    own = ("cursor_factory", "context", "prepare_threshold", "server_side_binding")
    return {name: value for name, value in django.items() if name not in own} | {"autocommit": True}


# The open pools, each by the loop that it belongs to.
pools: dict[asyncio.AbstractEventLoop, Pool | StockPool] = {}


class Runs(Protocol):
    """What runs the statements of a transaction."""

    def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> Awaitable[PGresult]: ...


# The transaction that this context is in, if it is in one (ops/postgres/transactions.py).
current: ContextVar[Runs | None] = ContextVar("current", default=None)


def fetch(statement: Statement, parameters: Sequence[bytes | None]) -> Awaitable[PGresult]:
    """Run a statement on the pool of the running loop. Raises psycopg.OperationalError, as `Pool.fetch` does.

    In a transaction it runs on the connection of that.

    Where no pool is open, it runs in a thread on Django's own connection: in tests, which then see the rows of their
    own transaction; in commands and shells, on any number of loops; with the instruments of development, which watch
    that connection.
    """
    runs = current.get() or pools.get(asyncio.get_running_loop())
    return runs.fetch(statement, parameters) if runs else fetch_through_django(statement, parameters)


fetch_through_django = sync_to_async(through_django.fetch)


@asynccontextmanager
async def open_pool() -> AsyncIterator[None]:
    """A pool for the running loop: for the lifespan of a worker, or of a command that reads much."""
    if settings.INSTRUMENTED:
        yield
        return
    loop = asyncio.get_running_loop()
    pool = Pool() if settings.RUNTIME == "lean" else StockPool()
    await pool.open()
    pools[loop] = pool
    try:
        yield
    finally:
        del pools[loop]
        await pool.close()
