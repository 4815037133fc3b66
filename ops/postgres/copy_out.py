"""Rows out of Postgres by COPY, as fast as their reader takes them: no value becomes a Python object.

    async with aclosing(copy_out(query, values, CSV)) as batches:
        async for lines in batches:         # about 60 KiB of lines
            await send(b"".join(lines))

One COPY is one statement, so all its rows are of one moment. Each COPY has a connection of its own, which is closed
at the end. The caller bounds how many run at once; their connections are part of the connection budget.

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
from django.db import connection as django_connection
from psycopg import AsyncClientCursor, AsyncConnection, ClientCursor
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from ops.postgres.connection import ResponseTimeout
from ops.postgres.long_transaction import ACKNOWLEDGED_SECONDS, in_time, own_connection
from ops.postgres.pool import pools
from ops.tasks import finish
from ops.telemetry.stopwatch import DB

# A batch ends with the row that reaches this size. Batches of small rows mostly fit into the 64 KiB that Django sends
# as one piece.
BATCH_BYTES = 60 * 1024
LINGER_SECONDS = 0.1  # for which a batch waits for its next row; the first batch does not wait
CANCEL_SECONDS = 2.0

# The forms of COPY. CSV gives lines that end with a line feed. TEXTS gives the texts of a query's only column as they
# are, by COPY's binary form, which escapes nothing: 1,000,000 rows of JSON take Postgres 1.3 s, and 1.55 s as CSV.
# Six bytes stand before each text (the number of columns and the text's length), a header before the first row, a
# trailer after the last.
CSV, TEXTS = "FORMAT csv", "FORMAT binary"
SIGNATURE, HEADER_BYTES, FRAME_BYTES, TRAILER = b"PGCOPY\n\xff\r\n\0", 19, 6, b"\xff\xff"

Rows = Sequence[memoryview] | Sequence[bytes]


async def copy_out(query: str, values: Sequence[str | None], form: str) -> AsyncGenerator[Rows, None]:
    """Yield the rows of `COPY (query) TO STDOUT` in batches of about 60 KiB. Raises psycopg's errors.

    `query` has Django's placeholders, which `values` fill. `form` is CSV or TEXTS. If the generator is closed before
    its end, the COPY is cancelled. Where no native pool is open, the COPY runs on Django's own connection, as every
    other statement does, and all rows are one batch.
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
                # other requests have their turn, even if `read` and the client never make this task wait
                await asyncio.sleep(0)
                if rows := read if form == CSV else _texts(read):
                    yield rows
        finally:
            await finish(copy.end())


class Copy:
    """One COPY out, which has its connection to itself."""

    def __init__(self, connection: "AsyncConnection[Any]") -> None:
        self._connection, self._pq = connection, connection.pgconn
        self._has_given_a_batch = self._has_ended = False
        self._silence: float = settings.STREAM_PATIENCE_SECONDS

    async def begin(self, statement: str, values: Sequence[str | None]) -> None:
        """Send the COPY in a transaction, and wait until it starts. Raises psycopg's errors, and ResponseTimeout."""
        # The session has the time limit of a request. SET LOCAL, since a pooler may give each transaction another
        # session. Compiling expressions would only delay the first row.
        limit = round(settings.EXPORT_SECONDS * 1000)
        with in_time(self._connection):
            await self._connection.execute(
                f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; SET LOCAL jit = off"
            )
        text = AsyncClientCursor(self._connection).mogrify(statement, values)  # COPY takes no parameters
        # In blocking mode send_query writes all of the statement. It need not wait: the socket's buffer is empty.
        self._pq.nonblocking = 0
        self._pq.send_query(text.encode())
        self._pq.nonblocking = 1
        await self._result(ExecStatus.COPY_OUT)

    async def read(self) -> list[memoryview]:
        """Return COPY's next messages, an empty list after the last. Raises psycopg's errors, and ResponseTimeout."""
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
            elif rows and not self._has_given_a_batch:
                break
            elif await self._readable(LINGER_SECONDS if rows else self._silence):
                was_read = False
            elif rows:
                break
            else:
                raise ResponseTimeout("no more rows from Postgres in time")
        self._has_given_a_batch = True
        return rows

    async def end(self) -> None:
        """Cancel the COPY if it has not ended. The connection is left open: its own `async with` block closes it."""
        if not self._has_ended:
            # If the connection were only closed, Postgres would run on to the next row that it sends.
            with suppress(psycopg.Error, OSError):
                await self._connection.cancel_safe(timeout=CANCEL_SECONDS)

    async def _result(self, expected: ExecStatus) -> None:
        """Wait for the next result, which should have the status `expected`.

        Raises psycopg's error if it has another status, or if the connection is lost; ResponseTimeout if Postgres
        sends nothing for too long.
        """
        while self._pq.is_busy():
            if not await self._readable(self._silence):
                raise ResponseTimeout("no answer from Postgres in time")
            self._pq.consume_input()
        result = self._pq.get_result()
        if result is None or result.status != expected:
            raise error_from_result(result) if result else psycopg.OperationalError("the connection is lost")

    async def _readable(self, seconds: float) -> bool:
        """Wait until Postgres sends something; False if it has sent nothing after `seconds`."""
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
    """Return the text in each message of the binary form; messages of only a header and a trailer give none."""
    if rows[0][: len(SIGNATURE)] == SIGNATURE:
        rows[0] = rows[0][HEADER_BYTES:]
    if rows[-1] == TRAILER:
        rows.pop()
    return [row[FRAME_BYTES:] for row in rows]


def _through_django(statement: str, values: Sequence[str | None]) -> list[bytes]:
    was_open = django_connection.connection is not None
    try:
        # The values are filled in before: with DEBUG, Django's cursor passes only one argument on to copy().
        with (
            django_connection.cursor() as cursor,
            cursor.copy(ClientCursor(django_connection.connection).mogrify(statement, values)) as copy,
        ):
            return [bytes(row) for row in copy]
    finally:
        if not was_open:
            django_connection.close()
