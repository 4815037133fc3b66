"""Rows out of Postgres by COPY, as fast as their reader takes them: no value becomes a Python object.

    async with aclosing(copy_out(query, values, CSV)) as batches:
        async for lines in batches:         # some 60 KiB of them
            await send(b"".join(lines))

One COPY is one statement, so all its rows are of one moment. It has a connection of its own, which is closed at the
end; how many there are at a time is the caller's to bound, and part of the connection budget.

psycopg's own way takes each row through a generator. Here rows are taken from libpq's buffer in a loop, and the event
loop has its turn between two batches: 1,000,000 rows cost the loop 0.9 s in pieces of 0.3 ms.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connection as djangos
from psycopg import AsyncClientCursor, AsyncConnection, ClientCursor
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from ops.postgres.connection import ResponseTimeout
from ops.postgres.long_transaction import ACKNOWLEDGED_SECONDS, in_time, own_connection
from ops.postgres.pool import pools
from ops.tasks import finish
from ops.telemetry.stopwatch import DB

BATCH_BYTES = 60 * 1024  # with its last row less than the 64 KiB that Django sends as one piece
LINGER_SECONDS = 0.1  # that rows wait for more of them to come, after the first batch, which goes out at once
CANCEL_SECONDS = 2.0

# The forms of COPY. CSV has lines with a line feed. TEXTS are those of a query's only column, as they are: the binary
# form escapes nothing, takes Postgres 1.3 s for 1,000,000 rows of JSON instead of 1.55 as CSV, and has a frame of
# six bytes around each, a header before the first and a trailer after the last.
CSV, TEXTS = "FORMAT csv", "FORMAT binary"
SIGNATURE, HEADER_BYTES, FRAME_BYTES, TRAILER = b"PGCOPY\n\xff\r\n\0", 19, 6, b"\xff\xff"

Rows = Sequence[memoryview] | Sequence[bytes]


async def copy_out(query: str, values: Sequence[str | None], form: str) -> AsyncGenerator[Rows, None]:
    """The rows of `COPY (query) TO STDOUT`, in batches of 60 KiB. Raises psycopg's errors.

    `form` is CSV or TEXTS. `query` has Django's placeholders. Postgres is cancelled if the generator is closed before
    its end. Where no native pool is open, the COPY runs on Django's own connection, as every other statement, and is
    one batch.
    """
    statement = f"COPY ({query}) TO STDOUT ({form})"
    if asyncio.get_running_loop() not in pools:
        lines = await sync_to_async(_through_django)(statement, values)
        if rows := lines if form == CSV else _texts(lines):
            yield rows
        return
    async with own_connection(tcp_user_timeout=ACKNOWLEDGED_SECONDS * 1000) as connection:
        copy = Copy(connection)
        try:
            with DB:
                await copy.begin(statement, values)
            while read := await copy.read():
                await asyncio.sleep(
                    0
                )  # other requests have their turn, also if Postgres and client are faster
                if rows := read if form == CSV else _texts(read):
                    yield rows
        finally:
            await finish(copy.end())


class Copy:
    """One COPY out, on a connection that it has to itself."""

    def __init__(self, connection: "AsyncConnection[Any]") -> None:
        self._connection, self._pq = connection, connection.pgconn
        self._has_begun = self._has_ended = False
        self._silence: float = settings.STREAM_PATIENCE_SECONDS

    async def begin(self, statement: str, values: Sequence[str | None]) -> None:
        """Send it. Raises psycopg's errors, and ResponseTimeout."""
        # The session's limits are a request's. SET LOCAL, since a pooler may give each transaction another session.
        # To compile expressions would only delay the first row.
        limit = round(settings.EXPORT_SECONDS * 1000)
        with in_time(self._connection):
            await self._connection.execute(
                f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; SET LOCAL jit = off"
            )
        text = AsyncClientCursor(self._connection).mogrify(statement, values)  # COPY takes no parameters
        self._pq.nonblocking = 0  # it fits into the socket's buffer, which is empty
        self._pq.send_query(text.encode())
        self._pq.nonblocking = 1
        await self._result(ExecStatus.COPY_OUT)

    async def read(self) -> list[memoryview]:
        """COPY's next messages; none after the last. Raises psycopg's errors, and ResponseTimeout."""
        get, rows, size = self._pq.get_copy_data, [], 0
        was_read = False  # whether the socket was read since the last row
        while size < BATCH_BYTES and not self._has_ended:
            length, row = get(1)
            if length > 0:
                rows.append(row)
                size += length
                was_read = False
            elif length < 0:
                await self._result(ExecStatus.COMMAND_OK)
                self._has_ended = True
            elif not was_read:
                self._pq.consume_input()
                was_read = True
            elif rows and not self._has_begun:
                break
            elif await self._readable(LINGER_SECONDS if rows else self._silence):
                was_read = False
            elif rows:
                break
            else:
                raise ResponseTimeout("no more rows from Postgres in time")
        self._has_begun = True
        return rows

    async def end(self) -> None:
        """Cancel it, if it is under way; the block of its connection closes that."""
        if not self._has_ended:
            # Closing alone would end it with the next row that Postgres sends, which may be long in coming.
            with suppress(psycopg.Error, OSError):
                await self._connection.cancel_safe(timeout=CANCEL_SECONDS)

    async def _result(self, expected: ExecStatus) -> None:
        while self._pq.is_busy():
            if not await self._readable(self._silence):
                raise ResponseTimeout("no answer from Postgres in time")
            self._pq.consume_input()
        result = self._pq.get_result()
        if result is None or result.status != expected:
            raise error_from_result(result) if result else psycopg.OperationalError("the connection is lost")

    async def _readable(self, seconds: float) -> bool:
        """Wait for Postgres to send something, so long at most."""
        loop, socket = asyncio.get_running_loop(), self._pq.socket
        event = asyncio.Event()
        loop.add_reader(socket, event.set)
        try:
            with DB:
                async with asyncio.timeout(seconds):
                    await event.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(socket)
        return True


def _texts(rows: list[Any]) -> Rows:
    """The column of each binary row: none of a header and a trailer alone."""
    if rows[0][: len(SIGNATURE)] == SIGNATURE:
        rows[0] = rows[0][HEADER_BYTES:]
    if rows[-1] == TRAILER:
        rows.pop()
    return [row[FRAME_BYTES:] for row in rows]


def _through_django(statement: str, values: Sequence[str | None]) -> list[bytes]:
    was_open = djangos.connection is not None
    try:
        # One argument, which is all that Django's cursor for DEBUG passes on.
        with (
            djangos.cursor() as cursor,
            cursor.copy(ClientCursor(djangos.connection).mogrify(statement, values)) as copy,
        ):
            return [bytes(row) for row in copy]
    finally:
        if not was_open:
            djangos.close()
