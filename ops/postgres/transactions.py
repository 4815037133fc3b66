"""Transactions: several statements that have their effect together, or none.

    async with transaction() as tx:
        order = await CREATE_ORDER(customer="ada")       # compiled commands and queries, in their order
        await CREATE_LINE(order_id=int(order.key))       # an error ends the block, and nothing was written
        tx.on_commit(partial(notify, order.key))         # called after the COMMIT, before the block is left

    order = await in_transaction(place_order)            # async def place_order(tx): again after a deadlock

All statements of the block's task, and of tasks that it starts and awaits, run in the transaction. A transaction
has a connection of the native pool to itself, and a worker has few: read the request's content before the block, and
never wait for a client or another service in it. BEGIN and COMMIT are a round trip each.

Where no native pool is open (tests, commands, shells), the transaction is Django's atomic() on Django's own
connection: a savepoint if Django is in a transaction already, as in a test.

https://www.postgresql.org/docs/current/transaction-iso.html
"""

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache, partial
from time import monotonic
from typing import Any, Literal, TypeVar

import psycopg
from asgiref.sync import async_to_sync, sync_to_async
from django.db import Error, connection
from django.db.transaction import atomic, on_commit
from psycopg import InternalError, OperationalError, errors
from psycopg.pq.abc import PGresult

from ops.postgres.connection import ConnectionLost, OutcomeUnknown, is_lost
from ops.postgres.pool import ROLLBACK, Lease, StockLease, current, fetch, fetch_through_django, pools
from ops.postgres.statement import Statement
from ops.tasks import finish

Isolation = Literal["read committed", "repeatable read", "serializable"]
Hook = Callable[[], Any]
Result = TypeVar("Result")

DEADLINE_SECONDS = 5.0  # for a block; idle_in_transaction_session_timeout limits each pause in it
ATTEMPTS = 3
PAUSE_SECONDS = 0.02  # at most, before the second attempt; twice that before the third
BEGIN: dict[str, Statement] = {
    level: Statement(f"BEGIN ISOLATION LEVEL {level.upper()}", ())
    for level in ("read committed", "repeatable read", "serializable")
}
COMMIT = Statement("COMMIT", (), repeatable=False)
# Django declares foreign keys as deferred: Postgres checks them at the COMMIT. After this statement it checks them
# with each statement, which then gets the error.
IMMEDIATE = Statement("SET CONSTRAINTS ALL IMMEDIATE", ())
# After these errors, nothing was written, and another attempt may succeed. The last two come from prepared statements
# that a migration has made stale.
TRY_AGAIN = (
    errors.DeadlockDetected,
    errors.SerializationFailure,
    ConnectionLost,
    errors.FeatureNotSupported,
    errors.InvalidSqlStatementName,
)


class TransactionTimeout(OperationalError):
    """The block has taken longer than its deadline: the transaction was rolled back."""


class Transaction:
    """A transaction under way, as `async with transaction()` gives it to the block."""

    def __init__(self) -> None:
        self.hooks: list[Hook] = []  # called after the commit, those with `on_unknown` first
        self._lease: Lease | StockLease
        self._failure: BaseException | None = None  # after it, only a rollback is possible
        self.has_ended = self.is_committed = False
        self._depth = 0  # of savepoints

    def on_commit(self, hook: Hook) -> None:
        """Have `hook` called, and its result awaited, after the commit and before the block is left.

        It is called even if the caller is cancelled meanwhile, but not after a rollback of the transaction or of a
        savepoint that is open now. If a hook raises, the caller gets the error, and later hooks are not called; the
        commit stands. Hooks with a method `on_unknown` come first; if the connection is lost under the COMMIT, these
        methods are called instead.
        """
        self.hooks.append(hook)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Set a savepoint: an error that leaves this block undoes only the block. Catch it outside.

        A cancellation that leaves the block, as by an asyncio.timeout around it, does not undo the block alone: only
        the whole transaction, or a savepoint around the timeout, can then be rolled back.
        """
        self._check()
        save, release, undo = _savepoint(self._depth)
        hooks = len(self.hooks)
        await self.fetch(save, ())
        self._depth += 1
        try:
            yield
            self._check()
        except Exception:
            del self.hooks[hooks:]
            self._failure = None
            await self.fetch(undo, ())
            raise
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._depth -= 1
        await self.fetch(release, ())

    async def fetch(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        """Run a statement in the transaction. In the block, ops.postgres.pool.fetch calls this method."""
        if self.has_ended:  # the task has outlived the block
            current.set(None)
            return await fetch(statement, parameters)
        try:
            return await self._run(statement, parameters)
        except BaseException as error:
            self._failure = error
            raise

    async def commit(self) -> None:
        """Commit, and call the hooks.

        Raises OutcomeUnknown if the connection is lost under the COMMIT, ConnectionLost if it was lost before,
        psycopg's errors of deferred constraints. If the block has caught the error of a statement, rolls back, and
        raises InFailedSqlTransaction.
        """
        try:
            self._check()
        except InternalError:
            await self.roll_back()
            raise
        self.has_ended = True
        await finish(self._commit())

    async def begin(self, isolation: Isolation) -> None:
        self._lease = await pools[asyncio.get_running_loop()].lease(BEGIN[isolation])

    async def _run(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        return await self._lease.fetch(statement, parameters)

    async def _commit(self) -> None:
        # `finish` runs this in a task with a copy of the context. Statements of hooks run outside the transaction.
        current.set(None)
        is_lost_before = self._lease.is_lost
        try:
            await self._lease.end(COMMIT)
        except OperationalError as error:
            if is_lost(error) and not is_lost_before:
                for hook in self.hooks:
                    if on_unknown := getattr(hook, "on_unknown", None):
                        await _call(on_unknown)
                raise OutcomeUnknown(str(error)) from error
            raise
        self.is_committed = True
        for hook in self._in_order():
            await _call(hook)

    def _in_order(self) -> list[Hook]:
        return sorted(self.hooks, key=lambda hook: not hasattr(hook, "on_unknown"))

    async def roll_back(self, *, wait: bool = True) -> None:
        """Roll back, and wait until the locks are free.

        Without `wait`, return at once: Postgres rolls back after the statement under way (statement_timeout).
        """
        self.has_ended = True
        ended = self._lease.end(ROLLBACK)
        if wait:
            with suppress(psycopg.Error):  # the connection is lost, and the transaction with it
                await asyncio.shield(ended)

    def _check(self) -> None:
        """Raises InFailedSqlTransaction if the error or cancellation of a statement or savepoint block was caught."""
        if self._failure:
            raise errors.InFailedSqlTransaction(
                "A statement of this block has failed, and its error was caught without a savepoint."
            ) from self._failure


class DjangoTransaction(Transaction):
    """A transaction on Django's own connection, by Django's atomic()."""

    async def begin(self, isolation: Isolation) -> None:
        await sync_to_async(self._enter)(isolation)

    def _enter(self, isolation: Isolation) -> None:
        self._was_open = connection.connection is not None
        is_outermost = not connection.in_atomic_block
        self._atomic = atomic()
        self._atomic.__enter__()
        if is_outermost:
            with connection.cursor() as cursor:
                cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation.upper()}")

    async def _run(self, statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
        return await fetch_through_django(statement, parameters)

    async def _commit(self) -> None:
        current.set(None)
        await sync_to_async(self._leave)(None)

    async def roll_back(self, *, wait: bool = True) -> None:
        self.has_ended = True
        await sync_to_async(self._leave)(ConnectionLost("rolled back"))

    def _leave(self, error: Exception | None) -> None:
        if self.hooks and not error:
            for hook in (self._set_committed, *self._in_order()):
                on_commit(partial(async_to_sync(_call), hook))
        try:
            self._atomic.__exit__(type(error) if error else None, error, None)
        except Error as failed:
            raise failed.__cause__ or failed from None
        finally:
            if not self._was_open:
                connection.close()

    def _set_committed(self) -> None:
        self.is_committed = True


def active() -> Transaction | None:
    """Return the transaction that the calling code is in, or None."""
    found = current.get()
    return found if isinstance(found, Transaction) and not found.has_ended else None


async def _call(hook: Hook) -> None:
    result = hook()
    if inspect.isawaitable(result):
        await result


@cache
def _savepoint(depth: int) -> tuple[Statement, Statement, Statement]:
    """Return the statements that set, release and roll back to the savepoint at this depth.

    They count as repeatable, so that through_django.fetch sets no savepoint around each. No transaction repeats them.
    """
    return (
        Statement(f"SAVEPOINT s{depth}", ()),
        Statement(f"RELEASE SAVEPOINT s{depth}", ()),
        Statement(f"ROLLBACK TO SAVEPOINT s{depth}", ()),
    )


@asynccontextmanager
async def transaction(
    *, isolation: Isolation = "read committed", deadline: float = DEADLINE_SECONDS
) -> AsyncIterator[Transaction]:
    """Run the block in a transaction; within another one, in a savepoint, with the outer isolation and deadline.

    After `deadline` seconds the block is cancelled, and TransactionTimeout raised. Besides the errors of its
    statements it raises InFailedSqlTransaction if the block has caught one and gone on, and OutcomeUnknown if the
    connection was lost under the COMMIT. On Django's own connection, in tests and commands, that is psycopg's error.
    """
    if isolation not in BEGIN:
        raise ValueError(f"isolation is one of {', '.join(BEGIN)}, not {isolation!r}.")
    if outer := active():
        async with outer.savepoint():
            yield outer
        return
    has_pool = asyncio.get_running_loop() in pools
    tx = Transaction() if has_pool else DjangoTransaction()
    await tx.begin(isolation)
    token = current.set(tx)
    try:
        async with asyncio.timeout(deadline) as limit:
            yield tx
    except BaseException as error:
        current.reset(token)
        is_late = isinstance(error, TimeoutError) and limit.expired()
        await tx.roll_back(wait=isinstance(error, Exception) and not is_late)
        if is_late:
            raise TransactionTimeout(
                f"The transaction took more than {deadline:.3g} s: rolled back."
            ) from error
        raise
    current.reset(token)
    await tx.commit()


async def in_transaction(
    block: Callable[[Transaction], Awaitable[Result]],
    *,
    attempts: int = ATTEMPTS,
    isolation: Isolation = "read committed",
    deadline: float = DEADLINE_SECONDS,
) -> Result:
    """Run `block` in a transaction, and return its result.

    After a deadlock, a serialisation failure, a stale prepared statement or the loss of the connection before the
    COMMIT, the whole block runs again, `attempts` times in all, within one deadline. After the commit it never runs
    again, even if a hook raises such an error. Within another transaction the block runs once: only an outermost
    in_transaction begins again.
    """
    is_nested = active() is not None
    give_up = monotonic() + deadline
    attempt = 1
    while True:
        tx = None
        try:
            async with transaction(isolation=isolation, deadline=give_up - monotonic()) as tx:
                return await block(tx)
        except TRY_AGAIN:
            # Random, so that two transactions do not meet again.
            pause = random.uniform(0, attempt * PAUSE_SECONDS)  # noqa: S311
            is_late = monotonic() + pause >= give_up
            if is_nested or attempt >= attempts or is_late or (tx and tx.is_committed):
                raise
        await asyncio.sleep(pause)
        attempt += 1
