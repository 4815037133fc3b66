"""The native async pool: a few connections in each worker, for the statements that requests run.

psycopg_pool opens, replaces and retires the connections. This pool borrows each for minutes, so that a request only
picks one from a list: that costs 1 us, where `AsyncConnectionPool.connection()` costs 20. All waits are bounded, in
time and in number.
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

WATCH_INTERVAL_SECONDS = 0.1  # between two looks for statements that take too long
# Between two requests to psycopg_pool for a connection while the server is away. It tries each second or two itself.
PROBE_SECONDS = 0.5
HELD_UP_SECONDS = 0.005  # without a result on a busy connection, until new statements avoid it

TAKEN, TIMED_OUT, REFUSED, LOST, AWAY = (
    CHECKOUTS.labels("native", outcome) for outcome in ("ok", "timeout", "refused", "lost", "away")
)
ROLLBACK = Statement("ROLLBACK", (), repeatable=False)
WAITED = WAITS.labels("native")  # most requests do not wait: they are counted without looking at a clock
PIPED = PIPES.labels("native")


class Busy(PoolTimeout):
    """All connections were busy for as long as a request may wait for one. Nothing was sent."""


class Unreachable(PoolTimeout):
    """No connection can be opened. Nothing was sent."""


class Lane:
    """A kind of statements (quick ones, other reads, or writes), with its queue and its choice of connections."""

    def __init__(self) -> None:
        self.places: Sequence[int] = ()  # indexes of Pool._places, the first choice first
        self.waiting: deque[Call] = deque()


class Pool:
    """Belongs to one event loop: open and close it there.

    Quick statements share the first connection, up to `depth` at once. While it is full, or held up by a statement
    that takes long, they go to the next connections for reads, but never to the last of these. Any other statement
    has a connection to itself while it runs, and never the first. A read gets a connection for reads, preferably the
    last; a write may also get one that is not for reads. If there is only one connection for reads, all statements
    may use it. A lost connection is returned to psycopg_pool, which opens another.

    | the server   | a request without a connection       | next                                                   |
    | ------------ | ------------------------------------ | ------------------------------------------------------ |
    | is there     | waits, for a bounded time            | away, once such a request has waited in vain, and      |
    |              |                                      | there is no connection at all                          |
    | is away      | is refused at once: Unreachable      | there, once a connection opens: psycopg_pool tries     |
    |              |                                      | each second or two                                     |
    """

    def __init__(self) -> None:
        self.borrowed: dict[Connection, float] = {}  # with the loop time at which each was borrowed
        self._places: list[Connection | None] = []  # the same connections by place; None: it is empty
        self._borrowing: set[int] = set()  # empty places for which a connection is on its way
        self._exclusive: set[Connection] = set()  # connections that a call has to itself
        self._leased: set[Connection] = set()  # connections that a transaction has to itself
        self._quick, self._slow, self._writes = self._lanes = Lane(), Lane(), Lane()
        self._rescue_due: asyncio.TimerHandle | None = None
        self._is_away = False  # whether the server cannot be reached
        self._source: AsyncConnectionPool[AsyncConnection[Any]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> list[Connection]:
        """The connections on which no statement and no transaction is under way."""
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
            await source.putconn(connection.source)  # a closed pool closes it
        await asyncio.gather(self._watching, *self._tasks, return_exceptions=True)

    def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> Awaitable[PGresult]:
        """Run a statement. Raises psycopg.OperationalError if no connection is free, or Postgres does not answer.

        If its connection is lost meanwhile, a repeatable statement runs once more, on another connection.
        """
        return self._fetch(statement, parameters)

    async def lease(self, begin: Statement) -> "Lease":
        """Begin a transaction by the statement `begin`, on a connection of its own. Raises as `fetch` does."""
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
        # With a lease, the statement begins a transaction, and the lease gets the connection.
        began = now = perf_counter()
        is_retry = False
        while True:
            call = Call(statement, parameters, self._loop.create_future(), now)
            call.lease, call.only_proven = lease, is_retry
            lane = self._lane(call)
            # A call in its second attempt takes only a connection that has answered since, or is new. It may wait
            # while another one is free, so a queue of such calls holds up no other call.
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
        """Record how long a call has waited, for a connection and on it.

        `was_away` says that the pool had no connection: such a wait is no sign of overload.
        """
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

    def counts(self) -> tuple[int, int, int]:
        """The numbers of idle connections, of busy ones, and of requests that wait."""
        idle = len(self.idle)
        return idle, len(self.borrowed) - idle, len(self.waiting)

    def _lane(self, call: Call) -> Lane:
        """The lane of a call. A call that begins a transaction counts as a write."""
        if call.statement.quick:
            return self._quick
        return self._slow if call.statement.repeatable and not call.lease else self._writes

    def _find(self, lane: Lane, now: float, call: Call) -> Connection | None:
        """Return a connection that can take the call at once, or None. Fills the first empty place on its way, too.

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
            elif not connection.calls_due:
                if connection not in self._leased:
                    return connection
            elif (
                lane is self._quick
                and connection.calls_due < self._options.depth
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
        if connection.calls_due > 1:
            self._plan_rescue()

    def _rescue(self) -> None:
        """Send calls that wait behind a slow one a second time, on an idle connection, if there is one.

        The slow connection runs these calls, too, but its answers are dropped.
        """
        self._rescue_due = None
        now = perf_counter()
        shared = [each for each in self.borrowed if each.calls_due > 1 and each not in self._leased]
        for connection in shared:
            if now - connection.since < HELD_UP_SECONDS:
                continue
            first = connection.calls()[0]
            other = self._find(self._lane(first), now, first)
            if not other or other.calls_due:
                continue
            for call in connection.in_pipeline()[1:]:
                if call.statement.repeatable and not call.future.done():
                    connection.withdraw(call)
                    self._send(other, call, now)
        if shared:
            self._plan_rescue()

    def _plan_rescue(self) -> None:
        if not self._rescue_due:
            self._rescue_due = self._loop.call_later(HELD_UP_SECONDS, self._rescue)

    def _enqueue(self, lane: Lane, call: Call) -> asyncio.TimerHandle:
        """Queue a call, and return the timer that ends its wait. Raises psycopg_pool's errors if it may not wait."""
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
                    self._is_away = True  # the next requests need not wait
                    logger.warning("the database is away: requests that need it are refused")
                call.future.set_exception(error(f"no connection within {self._options.timeout} s"))

        return self._loop.call_later(self._options.timeout, expire)  # a third of asyncio.timeout's cost

    def _serve(self) -> None:
        """Send calls that wait, in turn, as far as connections can take them."""
        now = perf_counter()
        for lane in self._lanes:
            for call in [*lane.waiting]:
                # Its caller is about to remove it, or a loss in _send has called _serve, which has sent it.
                if call.future.done() or call.connection:
                    continue
                if connection := self._find(lane, now, call):
                    lane.waiting.remove(call)
                    self._send(connection, call, now)
                elif not call.only_proven:
                    break

    def _progress(self, connection: Connection) -> None:
        """Results have come: the connection may take calls that wait."""
        if self._exclusive and not connection.calls_due and connection not in self._leased:
            self._exclusive.discard(connection)
        if self._quick.waiting or self._slow.waiting or self._writes.waiting:
            self._serve()

    def take_back(self, connection: Connection) -> None:
        """The transaction on a leased connection has ended: let others have the connection."""
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
        """Return a connection. If it is broken, psycopg_pool replaces its idle ones, too: they may be as broken.

        A read that was on it runs only once more, and would be lost for good on another broken connection.
        """
        if not connection.is_usable:
            await source.drain()
        await source.putconn(connection.source)

    async def _watch(self) -> None:
        """Fail calls and connections that wait too long for a result, and return connections borrowed long ago.

        While the server is away, ask for a connection every PROBE_SECONDS.
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
    """A connection of the pool for one transaction. Its statements run in order; only BEGIN may run again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.connection: Connection | None = None  # None until BEGIN is sent

    @property
    def is_lost(self) -> bool:
        return not self.connection or self.connection.is_lost

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a statement. Raises psycopg's errors; ConnectionLost means that the transaction has had no effect."""
        with DB:
            return await self._send(statement, parameters)

    def end(self, statement: Statement) -> asyncio.Future[PGresult]:
        """Send COMMIT or ROLLBACK after the statements under way. Its result gives the pool the connection back."""

        def take_back(ended: asyncio.Future[PGresult]) -> None:
            if not ended.cancelled():
                ended.exception()  # keeps it out of the log if no caller waits
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
        call.connection, call.alone, call.is_in_transaction = connection, True, True
        connection.send(call)
        return future


class StockPool:
    """The pool of RUNTIME=stock: psycopg's own pool and cursors.

    It has the sizes of settings.NATIVE_POOL and its limits of waiting for a connection, and no deadline of an answer.
    A read fails if its connection is lost. A read that a frozen server holds up ends only with its TCP connection.
    """

    async def open(self) -> None:
        """Open the pool. A database that is down is no error here."""
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
        """Run a statement. Raises psycopg.OperationalError if no connection is free, or if the connection is lost."""
        values = [None if text is None else text.decode() for text in parameters]
        async with AsyncExitStack() as stack:
            with _checkout():
                connection = await stack.enter_async_context(self._source.connection())
            with DB:
                cursor = await connection.execute(statement.template, values)
        return cast("PGresult", cursor.pgresult)

    async def lease(self, begin: Statement) -> "StockLease":
        """Begin a transaction by the statement `begin`, on a connection of its own. Raises as `fetch` does."""
        with _checkout():
            lease = StockLease(self._source, await self._source.getconn())
        try:
            await lease.fetch(begin, ())
        except BaseException:
            lease.end(ROLLBACK)
            raise
        return lease

    def counts(self) -> tuple[int, int, int]:
        """The numbers of idle connections, of busy ones, and of requests that wait."""
        stats = self._source.get_stats()
        idle = stats["pool_available"]
        return idle, stats["pool_size"] - idle, stats["requests_waiting"]


@contextmanager
def _checkout() -> Iterator[None]:
    """Count the block's checkout from psycopg's pool, and time its wait."""
    began = perf_counter()
    try:
        with QUEUE:
            yield
    except PoolTimeout:  # it does not say whether the pool is full or the server away
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
    """The same as Lease, with psycopg's cursors."""

    _ending: ClassVar[set[asyncio.Task[PGresult]]] = set()  # a loop has only weak references to tasks

    def __init__(
        self, source: "AsyncConnectionPool[AsyncConnection[Any]]", connection: AsyncConnection[Any]
    ) -> None:
        self._source, self._connection = source, connection

    @property
    def is_lost(self) -> bool:
        return self._connection.closed

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """The same as Lease.fetch."""
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
        """The same as Lease.end."""

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
    """Return psycopg's pool with the sizes and times of settings.NATIVE_POOL, not open yet.

    `parameters` go to psycopg's connect(), besides those of `connection_parameters`.
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
    """Return the libpq parameters of Django's default connection, and autocommit: psycopg begins no transactions."""
    django = connections["default"].get_connection_params()
    own = ("cursor_factory", "context", "prepare_threshold", "server_side_binding")
    return {name: value for name, value in django.items() if name not in own} | {"autocommit": True}


# The open pools, each by the loop that it belongs to.
pools: dict[asyncio.AbstractEventLoop, Pool | StockPool] = {}


class StatementRunner(Protocol):
    """A transaction, as `fetch` needs it."""

    def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> Awaitable[PGresult]: ...


# The transaction that this context is in, if it is in one (ops/postgres/transactions.py).
current: ContextVar[StatementRunner | None] = ContextVar("current", default=None)


def fetch(statement: Statement, parameters: Sequence[bytes | None]) -> Awaitable[PGresult]:
    """Run a statement on the pool of the running loop. Raises psycopg.OperationalError, as `Pool.fetch` does.

    In a transaction, the statement runs on the connection of the transaction.

    Where no pool is open, it runs in a thread on Django's own connection: in tests, which then see the rows of their
    own transaction; in commands and shells, on any number of loops; with the instruments of development, which watch
    that connection.
    """
    runner = current.get() or pools.get(asyncio.get_running_loop())
    return runner.fetch(statement, parameters) if runner else fetch_through_django(statement, parameters)


fetch_through_django = sync_to_async(through_django.fetch)


@asynccontextmanager
async def open_pool() -> AsyncIterator[None]:
    """Open a pool for the running loop, for the lifespan of a worker, or of a command that reads much."""
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
