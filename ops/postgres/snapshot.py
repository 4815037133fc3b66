"""Runs reads that take seconds, several at once, on one snapshot of the data.

A request's statements may take a second, and a worker's pool has no connection to spare for longer ones. These reads
have connections of their own, which are closed after them. One transaction exports its snapshot, and the others take
it over, as pg_dump's jobs do: so a total is the sum of its groups, even if rows are written meanwhile.

https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, cast

from psycopg import AsyncConnection, OperationalError, sql
from psycopg.pq.abc import PGresult

from ops.postgres.connection import ResponseTimeout
from ops.postgres.gather import gather
from ops.postgres.long_transaction import cut, own_connection
from ops.postgres.pool import fetch, pools
from ops.postgres.statement import Statement
from ops.telemetry.stopwatch import DB

Session = AsyncConnection[Any]


class Sessions:
    """The connections of one snapshot. After `seconds` all are cut, and their statements raise OperationalError.

    All at once: to cancel the statement of one, because another has failed, would wait for an answer of Postgres.
    """

    def __init__(self, stack: AsyncExitStack, seconds: float) -> None:
        self.is_late = False
        self._stack, self._limit = stack, f"'{seconds:g}s'"
        self._sessions: list[Session] = []
        stack.callback(asyncio.get_running_loop().call_later(seconds, self._end).cancel)

    def _end(self) -> None:
        self.is_late = True
        for session in self._sessions:
            cut(session)

    async def begin(self) -> Session:
        """Open a connection, and begin a read-only transaction on it."""
        session = await self._stack.enter_async_context(own_connection())
        if self.is_late:
            raise OperationalError("the connection was opened too late")
        self._sessions.append(session)
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # The session's own limits are for requests. These end the work in the server if it does not hear that the
        # connection has ended.
        await session.execute(
            f"SET LOCAL statement_timeout = {self._limit}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {self._limit}"
        )
        return session


async def read_snapshot(
    statements: Sequence[Statement], *, seconds: float, connections: int
) -> list[PGresult]:
    """Return the results of `statements`, in their order. They have no parameters.

    Each of the connections runs the next statement once it is free. Raises psycopg.OperationalError if Postgres
    cannot be reached, or has not answered all statements within `seconds`. Where no native pool is open, they run on
    Django's connection, one after another, each on a snapshot of its own.
    """
    if asyncio.get_running_loop() not in pools:
        return [await fetch(statement, ()) for statement in statements]
    with DB:
        async with AsyncExitStack() as stack:
            sessions = Sessions(stack, seconds)
            try:
                first = await sessions.begin()
                idle = [first]
                if connections > 1:
                    snapshot = await (await first.execute("SELECT pg_export_snapshot()")).fetchone()
                    take_over = sql.SQL("SET TRANSACTION SNAPSHOT {}").format(*snapshot or ())
                    for _ in range(connections - 1):
                        session = await sessions.begin()
                        await session.execute(take_over)
                        idle.append(session)

                async def run(statement: Statement) -> PGresult:
                    session = idle.pop()
                    try:
                        return cast("PGresult", (await session.execute(statement.template, ())).pgresult)
                    finally:
                        idle.append(session)

                return await gather(*map(run, statements), limit=len(idle))
            except OperationalError as error:
                if not sessions.is_late:
                    raise
                raise ResponseTimeout(f"no answer from Postgres within {seconds:g} s") from error
