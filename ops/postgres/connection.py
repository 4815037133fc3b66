"""One connection of the native pool. It runs the statements of many requests, in libpq's pipeline mode.

psycopg opens the connection: TLS, authentication, time-outs. Statements then go straight through psycopg.pq. The
event loop watches the socket all the time, and so sees at once that the server has closed the connection.

The statements of one turn of the event loop are a batch: they are sent in one write, with one Sync at their end, and
Postgres answers them in order. A batch is one transaction and few system calls: a row by id takes client and server
48 us together, instead of 112 if each statement has a connection to itself (docs/decisions/0008-native-pool.md). A
statement that changes data is a batch of its own.

A call's wait for the results of earlier calls counts as `queue`, the rest of its time as `db`. If several results
come together, each counts as an equal share of the time.

After an error Postgres skips the rest of the batch. The skipped statements are sent again, each as a batch of its
own, so that only the caller of the wrong statement gets the error.

| state | meaning                                                   | next                                         |
| ----- | --------------------------------------------------------- | -------------------------------------------- |
| idle  | no result is due                                          | busy by `send`                               |
| busy  | results are due, also for callers that were cancelled     | idle with the last result                    |
| lost  | closed by the server, given up by the pool or too old     | none; `fail` leads here from any state       |

https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-PIPELINING
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, OperationalError, errors
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from ops.postgres.statement import Statement


class ConnectionLost(OperationalError):
    """The connection was lost. Its statement may have had an effect, unless it is in a transaction still open."""


class OutcomeUnknown(OperationalError):
    """The connection was lost or silent under a write or COMMIT, which may or may not have had its effect."""


class ResponseTimeout(OperationalError):
    """The server was silent for too long. The statement is not sent again: its caller would wait as long again."""


def is_lost(error: OperationalError) -> bool:
    """Whether the error means that the connection is gone.

    An error without a code comes from libpq; codes in 57P come from a server that shuts down. After any FATAL error
    nothing more comes: PgBouncer sends one, 08P01, when it has lost the server under a statement.
    """
    severity = error.diag.severity_nonlocalized or error.diag.severity
    return error.sqlstate is None or error.sqlstate.startswith("57P") or severity in ("FATAL", "PANIC")


# Most statements that a connection keeps prepared, as in psycopg; each takes memory in the backend.
MAX_PREPARED_STATEMENTS = 100
SUCCESS = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
# Errors of a prepared statement that is gone after a DEALLOCATE, or no longer fits the tables after a migration.
STALE_STATEMENT = (errors.FeatureNotSupported, errors.InvalidSqlStatementName)

# The names of the statements prepared on each of psycopg's connections, the last used one last. The statements stay
# prepared when a connection goes back to psycopg_pool.
_prepared: WeakKeyDictionary[AsyncConnection[Any], OrderedDict[bytes, None]] = WeakKeyDictionary()


class Call:
    """A statement that a caller runs, with its parameters. Times are perf_counter's."""

    __slots__ = (
        *("alone", "connection", "error", "future", "is_in_transaction", "lease", "parameters"),
        *("only_proven", "closes_first", "sent", "since", "started", "statement"),
    )

    def __init__(
        self,
        statement: Statement,
        parameters: Sequence[bytes | None],
        future: asyncio.Future[PGresult],
        since: float,
    ) -> None:
        self.statement = statement
        self.parameters = parameters
        self.future = future
        self.connection: Connection | None = None  # the one that the call was sent on
        self.since = since  # when its caller asked for it, or its second attempt began
        self.sent = since  # when it was given to its connection
        self.started = since  # when the results before its own had come; set with its result
        self.alone = not statement.repeatable  # whether it is a batch of its own
        self.is_in_transaction = False  # then it is not sent again, since an error ends its transaction
        self.only_proven = False  # whether its connection must have answered since `since`, or be a new one
        self.lease: Any = None  # the Lease that gets the connection, if the call begins a transaction
        self.closes_first = False  # whether to close its statement's name before preparing it
        self.error: Exception | None = None  # of its Parse message


class Preparation:
    """Stands for the result of a Parse message, which is due, before that of its call."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


class Closing:
    """Stands for the result of a Close message, which is due."""

    __slots__ = ("name",)

    def __init__(self, name: bytes) -> None:
        self.name = name


SYNC = object()  # stands for the end of a batch, which is due


class Connection:
    """Runs the statements of many callers, in order.

    `on_progress` is called when results have come, `on_lost` once, when the connection is lost. With `prepare`,
    statements are prepared.
    """

    def __init__(
        self,
        source: AsyncConnection[Any],
        on_progress: Callable[["Connection"], None],
        on_lost: Callable[["Connection"], None],
        *,
        prepare: bool,
    ) -> None:
        """Put `source` into pipeline mode. Raises psycopg.OperationalError if the server has hung up already."""
        self.source = source
        self.calls_due = 0  # calls with a result due
        self.since = 0.0  # perf_counter when Postgres could begin with the first of them
        self.proven = perf_counter()  # when it last answered
        self.is_lost = False
        self.is_usable = True  # after a loss: whether the psycopg connection is still good
        self._prepare_statements = prepare
        self._on_progress, self._on_lost = on_progress, on_lost
        self._pq = source.pgconn
        self._pq.enter_pipeline_mode()
        self._socket = self._pq.socket
        self._prepared = _prepared.setdefault(source, OrderedDict())
        self._expected: deque[Any] = deque()  # due, in order: Call, Preparation, Closing or SYNC
        self._is_flush_due = False  # whether a flush goes before the next statement
        self._is_batch_open = False  # whether the last batch still lacks its Sync
        self._results: list[tuple[Call, PGresult | Exception]] = []  # that this read has brought
        self._held: tuple[Call, PGresult | Exception] | None = None  # a lone call, until its Sync
        self._again: list[Call] = []  # calls that the server has skipped or that need another preparation
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def send(self, call: Call) -> None:
        """Send a call. Its future gets the result or psycopg's error.

        The calls of one turn of the event loop share a batch, unless they are `alone`. If the caller is cancelled, a
        statement that Postgres has begun runs to its end all the same; statement_timeout bounds that.
        """
        self.calls_due += 1
        if self.calls_due == 1:
            self.since = call.sent
        try:
            self._send(call)
        except OperationalError as error:
            lost = ConnectionLost(str(error))
            self.fail(lost)
            if not call.future.done():
                call.future.set_exception(lost)

    def calls(self) -> list[Call]:
        """The calls with a result due, in order."""
        return [*self.in_pipeline(), *self._again]

    def in_pipeline(self) -> list[Call]:
        """The calls that Postgres has, in order: without those that it has skipped, or that need a preparation."""
        held = [self._held[0]] if self._held else []
        return [*held, *(each for each in self._expected if isinstance(each, Call))]

    def withdraw(self, call: Call) -> None:
        """Have a call's result dropped when it comes: its caller gets one from another connection."""
        future: asyncio.Future[PGresult] = self._loop.create_future()
        future.cancel()
        dropped = Call(call.statement, call.parameters, future, call.since)
        self._expected[self._expected.index(call)] = dropped
        for each in self._expected:
            if isinstance(each, Preparation) and each.call is call:
                each.call = dropped

    @property
    def is_idle(self) -> bool:
        return not self._expected

    def fail(self, error: OperationalError) -> None:
        """Give the connection up: callers that wait for a result get the error.

        If it is idle, it leaves pipeline mode, so that its psycopg connection can be used further.
        """
        if self.is_lost:
            return
        self.is_lost = True
        self.is_usable = self.is_idle and self._pq.status == ConnStatus.OK
        if self.is_usable:
            self._pq.exit_pipeline_mode()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._results:
            self._give_results()
        for call in self.calls():
            if not call.future.done():
                call.future.set_exception(error)
        self._expected.clear()
        self._again.clear()
        self._held = None
        self.calls_due = 0
        self._on_lost(self)

    def _send(self, call: Call) -> None:
        statement = call.statement
        if call.alone:
            self._end_batch()
        elif self._is_flush_due:
            self._pq.send_flush_request()
        self._is_flush_due = statement.flush
        if not self._prepare_statements:
            self._expected.append(call)
            self._pq.send_query_params(statement.sql, call.parameters)
        else:
            if statement.name not in self._prepared or call.closes_first:
                self._prepare(call)
            else:
                self._prepared.move_to_end(statement.name)
            self._expected.append(call)
            self._pq.send_query_prepared(statement.name, call.parameters)
        if not self._is_batch_open:
            self._is_batch_open = True
            if not call.alone:
                self._loop.call_soon(self._flush)
        if call.alone:
            self._end_batch()

    def _prepare(self, call: Call) -> None:
        """Prepare the call's statement in its batch, which costs no round trip."""
        statement = call.statement
        if call.closes_first:
            self._close_prepared(statement.name)
        elif len(self._prepared) >= MAX_PREPARED_STATEMENTS:
            self._close_prepared(self._prepared.popitem(last=False)[0])
        self._prepared[statement.name] = None
        self._expected.append(Preparation(call))
        self._pq.send_prepare(statement.name, statement.sql)

    def _close_prepared(self, name: bytes) -> None:
        """Send a Close message: PgBouncer understands it, and it succeeds even for an unknown name."""
        self._expected.append(Closing(name))
        self._pq.send_close_prepared(name)

    def _flush(self) -> None:
        """End the batch of this turn of the event loop."""
        if self.is_lost:
            return
        try:
            self._end_batch()
        except OperationalError as error:
            self.fail(ConnectionLost(str(error)))

    def _end_batch(self) -> None:
        if not self._is_batch_open:
            return
        self._is_batch_open = self._is_flush_due = False
        self._expected.append(SYNC)
        self._pq.pipeline_sync()  # writes as much as the socket takes
        if self._pq.flush():
            self._loop.add_writer(self._socket, self._write)

    def _write(self) -> None:
        try:
            if not self._pq.flush():
                self._loop.remove_writer(self._socket)
        except OperationalError as error:
            self.fail(ConnectionLost(str(error)))

    def _read(self) -> None:
        pq, expected = self._pq, self._expected
        try:
            pq.consume_input()
            while expected and not pq.is_busy():
                result = pq.get_result()
                if result is None:
                    continue
                if expected[0] is SYNC:
                    self._take_sync(result)
                else:
                    pq.get_result()  # None: each message has one result
                    self._take(expected.popleft(), result)
        except OperationalError as error:
            self.fail(ConnectionLost(str(error)))
        else:
            if self.is_lost:
                return
            if self._results:
                self._give_results()
                self._on_progress(self)
            elif not self.calls_due:  # the last calls were dropped: no caller waits any more
                self._on_progress(self)

    def _take_sync(self, result: PGresult) -> None:
        """Take the end of a batch, or an error before it: a deferred constraint has failed the batch's commit."""
        if result.status != ExecStatus.PIPELINE_SYNC:
            if self._held:
                self._held = self._held[0], error_from_result(result)
            return
        self._expected.popleft()
        if self._held:
            held, self._held = self._held, None
            self._complete(*held)
        for call in self._again:  # each is sent as a batch of its own, unless no caller waits for it any more
            if call.future.done():
                self.calls_due -= 1
            else:
                call.alone, call.error = True, None
                self._send(call)
        self._again.clear()  # not before: if a sending fails, `fail` ends all of them

    def _give_results(self) -> None:
        """Give the results of this read to the callers that still wait, each with an equal share of the time."""
        results, self._results = self._results, []
        now = perf_counter()
        share = (now - self.since) / len(results)
        for call, result in results:
            call.started = max(call.sent, self.since)
            self.since += share
            if call.future.done():
                continue  # cancelled
            if isinstance(result, Exception):
                call.future.set_exception(result)
            else:
                call.future.set_result(result)
        self.since = self.proven = now

    def _take(self, due: Any, result: PGresult) -> None:
        """Take Postgres's answer to `due`: a Call, a Preparation or a Closing."""
        status = result.status
        if isinstance(due, Call):
            if status in SUCCESS and due.alone:
                self._held = due, result
            elif status in SUCCESS:
                self._complete(due, result)
            elif status == ExecStatus.PIPELINE_ABORTED and not due.error:
                self._again.append(due)
            else:
                self._take_error(due, due.error or error_from_result(result))
        elif isinstance(due, Preparation) and status != ExecStatus.COMMAND_OK:
            self._prepared.pop(due.call.statement.name, None)
            if status == ExecStatus.FATAL_ERROR:
                error = error_from_result(result)
                is_known = isinstance(error, errors.DuplicatePreparedStatement)
                if is_known and not due.call.closes_first and not due.call.is_in_transaction:
                    due.call.closes_first = True  # the server has skipped the Close of its name
                else:
                    due.call.error = error
        elif isinstance(due, Closing) and status == ExecStatus.PIPELINE_ABORTED:
            self._prepared[due.name] = None

    def _take_error(self, call: Call, error: Exception) -> None:
        """Take an error: fail the connection, send the call again, or give its caller the error."""
        if (isinstance(error, OperationalError) and is_lost(error)) or self._pq.status != ConnStatus.OK:
            self._expected.appendleft(call)
            self.fail(ConnectionLost(str(error)))
        elif self._prepare_statements and isinstance(error, STALE_STATEMENT) and not call.closes_first:
            if call.is_in_transaction:
                self._prepared.pop(call.statement.name, None)
                self._close_prepared(call.statement.name)  # goes out with the next batch, the ROLLBACK
                self._complete(call, error)
            else:
                call.closes_first = True
                self._again.append(call)
        else:
            self._complete(call, error)

    def _complete(self, call: Call, result: PGresult | Exception) -> None:
        self.calls_due -= 1
        self._results.append((call, result))
