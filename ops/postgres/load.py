"""Loads a stream of rows into a table, by the statements of ops/postgres/staging.py, one after the other.

    load = Load(plan, connection)                              # in a transaction
    read = await load.receive(pieces, is_csv=True)             # the stream as it is, into a temporary table
    await load.convert()                                       # into rows; marks the lines that cannot be rows
    wrong = await load.wrong_lines(100)
    inserted = await load.insert(100)                          # in batches

While the client sends, the target table is neither locked nor written. Lines that are wrong by themselves are
found before the first row is inserted, so they cost the table nothing; only `insert` finds conflicts with other rows.
Postgres says which lines are wrong. The caller finds out why, by the code that reads single rows.
"""

import re
import select
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import Any, NamedTuple

import psycopg
import structlog
from django.db import connection as django_connection
from psycopg import AsyncConnection, sql

from ops.postgres.lines import (
    ENCODING,
    MAX_LINE_BYTES,
    TOO_LONG,
    CsvLines,
    JsonLines,
    Lines,
    Unreadable,
    header_of,
)
from ops.postgres.staging import Staging
from ops.postgres.statement import literal
from ops.telemetry.stopwatch import DB

logger = structlog.get_logger(__name__)

# Bytes of "import rows" that one INSERT takes, about 40,000 rows. Postgres keeps a note of each row until the
# statement ends, to check the foreign keys.
BATCH_BYTES = 4 * 1024 * 1024
PROGRESS_SECONDS = 10.0  # between two lines in the log


class WrongLine(NamedTuple):
    """A line that cannot be a row."""

    line: int
    # NDJSON's text or CSV's cells, if the line is wrong by itself
    content: str | dict[str, str | None] | None
    refused: Sequence[str]  # fields with an invalid value
    unknown: Sequence[str]  # fields that name no row
    broken_constraints: Sequence[str]  # check constraints that the line breaks, if nothing else is wrong


class WrongHeader(Exception):
    """The first line of CSV is wrong. `faults` are names of fields, each with the code of its fault."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__(", ".join(f"{name}: {code}" for name, code in faults))
        self.faults = faults


class Conflict(Exception):
    """Postgres has refused a row. `lines` are the numbers of the lines at fault, at least one."""

    def __init__(self, error: psycopg.Error, lines: Sequence[int]) -> None:
        super().__init__(str(error))
        self.error, self.lines = error, lines


class Load:
    """Loads one stream into one table, in the transaction of `connection`, which the caller commits or rolls back.

    Call the methods in the order in which they stand here. They raise psycopg's errors. An OperationalError is not
    the stream's fault.
    """

    def __init__(self, plan: Staging, connection: "AsyncConnection[Any]") -> None:
        self.plan, self.connection = plan, connection
        self.header: list[str] | None = None  # the names in CSV's first line
        self.broken: Unreadable | None = None  # the line that has ended the reading, once there is one
        self._told = monotonic()  # when the progress was logged last

    async def receive(self, pieces: AsyncIterator[bytes], *, is_csv: bool) -> int:
        """Stage the lines up to the first broken one, and return their number. Raises Unreadable and WrongHeader.

        An error of `pieces` is passed on; the caller then only has to roll the transaction back.
        """
        piece: bytes | None = b""
        if is_csv:
            self.header, piece = await self._read_header(pieces)
            lines: Lines = CsvLines(len(self.header))
            named = ", ".join(f"c{at} text" for at in range(len(self.header)))
            columns, form = named.replace(" text", ""), "FORMAT csv"
        else:
            lines, named, columns, form = JsonLines(), "doc text", "doc", "DELIMITER E'\\x01'"
        await self.connection.execute(
            f'CREATE TEMP TABLE "import lines" (line bigint GENERATED ALWAYS AS IDENTITY, {named}) ON COMMIT DROP'
        )
        answers = select.poll()
        answers.register(self.connection.pgconn.socket, select.POLLIN)
        is_cut = False
        try:
            async with self.connection.cursor() as cursor:
                async with cursor.copy(f'COPY "import lines" ({columns}) FROM STDIN ({form})') as copy:
                    while piece is not None:
                        with DB:
                            await copy.write(lines.feed(piece))
                        # Postgres has sent something, surely an error, and would ignore the rest.
                        if (is_cut := bool(answers.poll(0))) or lines.broken:
                            break
                        piece = await anext(pieces, None)
                    else:
                        await copy.write(lines.end())
                if is_cut:
                    raise psycopg.OperationalError("Postgres spoke in the middle of a COPY")
                if lines.broken:
                    self.broken = Unreadable(cursor.rowcount + 1 + is_csv, *lines.broken)
                return cursor.rowcount
        except psycopg.Error as error:
            if not _is_of_values(error):
                raise
            # A character that the database's encoding lacks, if that is not UTF-8.
            found = re.search(r"import lines\D+(\d+)", error.diag.context or "")
            raise Unreadable(int(found[1]) + is_csv if found else 0, *ENCODING) from error

    async def _read_header(self, pieces: AsyncIterator[bytes]) -> tuple[list[str], bytes]:
        """Return the names in CSV's first line, and the bytes that have come after that line.

        Raises Unreadable and WrongHeader.
        """
        read = b""
        async for piece in pieces:
            read += piece
            if b"\n" in piece or len(read) > MAX_LINE_BYTES:
                break
        line, _, rest = read.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            raise Unreadable(1, *TOO_LONG)
        header = header_of(line)
        known = [cell.name for cell in self.plan.cells]
        needed = [cell.name for cell in self.plan.cells if cell.default is None]
        wrong = [(name, "unknown") for name in header if name not in known]
        wrong += [(name, "repeated") for name in known if header.count(name) > 1]
        wrong += [(name, "missing") for name in needed if name not in header]
        if wrong:
            raise WrongHeader(wrong)
        return header, rest

    async def convert(self) -> None:
        """Make rows of the lines, and mark the wrong ones.

        The first attempt casts each text that has the right form. If a cast fails, a second attempt asks Postgres
        before each cast whether it will succeed, which takes longer.
        """
        with DB:
            try:
                async with self.connection.transaction():
                    await self.connection.execute(self.plan.conversion(self.header, tests_first=False))
            except psycopg.Error as error:
                if not _is_of_values(error):
                    raise
                await self.connection.execute(self.plan.conversion(self.header, tests_first=True))

    async def wrong_lines(self, limit: int) -> list[WrongLine]:
        """Return the first lines that cannot be rows, in their order, `limit` at most."""
        # The table's check constraints on columns that the rows have: the SQL of each condition, by name.
        checks = dict(
            await self._rows(
                sql.SQL(
                    "SELECT conname, pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = {}::regclass"
                    " AND contype = 'c' AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = conrelid"
                    " AND attnum = ANY(conkey) AND attname <> ALL({}))"
                ).format(self.plan.table, self.plan.columns)
            )
        )
        tests = [f"NOT coalesce({condition}, true)" for condition in checks.values()]
        is_wrong = " OR ".join(('"import fault" IS NOT NULL', *tests))
        broken = ", ".join(f"CASE WHEN {test} THEN {at} END" for at, test in enumerate(tests))
        found = await self._rows(
            f'SELECT "import line", "import fault", array_remove(ARRAY[{broken}]::int[], NULL) FROM "import rows"'
            f' WHERE {is_wrong} ORDER BY "import line" LIMIT {limit:d}'
        )
        wrong = [line for line, fault, _ in found if fault and fault & 1]
        contents: dict[int, str | dict[str, str | None]] = {}
        refused: dict[int, list[int]] = {}
        if wrong:
            refused = dict(await self._rows(self.plan.refused(self.header, wrong)))
            columns = "doc" if self.header is None else ", ".join(f"c{at}" for at in range(len(self.header)))
            lines = await self._rows(
                f'SELECT line, {columns} FROM "import lines" WHERE line = ANY({literal(wrong)})'
            )
            if self.header is None:
                contents = dict(lines)
            else:
                contents = {line: dict(zip(self.header, cells, strict=True)) for line, *cells in lines}
        names = [*checks]
        return [
            WrongLine(
                line=line + (self.header is not None),
                content=contents.get(line),
                refused=[self.plan.cells[at].name for at in refused.get(line, ())],
                unknown=[cell.name for at, cell in enumerate(self.plan.cells) if (fault or 0) & 2 << at],
                broken_constraints=() if fault else [names[at] for at in at_checks],
            )
            for line, fault, at_checks in found
        ]

    async def insert(self, limit: int) -> int:
        """Insert the rows in batches, and return their number. Raises Conflict with at most `limit` lines."""
        await self.connection.execute('DROP TABLE "import lines"')
        [[size, page]] = await self._rows(
            "SELECT pg_relation_size('\"import rows\"'), current_setting('block_size')::int"
        )
        inserted, pages, step = 0, size // page, BATCH_BYTES // page
        await self.connection.execute('SAVEPOINT "import"')
        for first in range(0, pages, step):
            batch = f"ctid >= '({first},0)' AND ctid < '({first + step},0)'"
            try:
                inserted += await self._insert(batch)
            except (psycopg.IntegrityError, psycopg.DataError) as error:
                # For a unique rule of the table, all lines that break it; for any other rule, only the first line.
                lines: list[int] = []
                if isinstance(error, psycopg.errors.UniqueViolation):
                    lines = await self._repeated(error.diag.constraint_name or "", limit)
                if not lines:
                    lines = [await self._first_refused(batch)]
                raise Conflict(error, [line + (self.header is not None) for line in lines]) from error
            if monotonic() - self._told > PROGRESS_SECONDS:
                self._told = monotonic()
                logger.info("imported rows", table=self.plan.table, rows=inserted)
        await self.connection.execute('DROP TABLE "import rows"')
        return inserted

    async def _insert(self, condition: str) -> int:
        """Insert those of "import rows" for which the SQL `condition` holds, and return their number.

        An error undoes only this INSERT.
        """
        columns = ", ".join(django_connection.ops.quote_name(column) for column in self.plan.columns)
        query = (
            f'INSERT INTO {self.plan.table} ({columns}) SELECT {columns} FROM "import rows" WHERE {condition}'
        )
        with DB:
            async with self.connection.transaction():
                return (await self.connection.execute(query)).rowcount

    async def _repeated(self, index: str, limit: int) -> list[int]:
        """Return the lines that repeat a row of the table, or an earlier line, in the columns of a unique index.

        All batches are undone before the search. The list is empty, and nothing is undone, if `index` is of another
        table, such as one that a trigger writes, or has a column that only Postgres fills, such as an automatic key.
        """
        found = await self._rows(
            sql.SQL(
                "SELECT ARRAY(SELECT pg_get_indexdef(indexrelid, n, true) FROM generate_series(1, indnkeyatts) AS n),"
                " pg_get_expr(indpred, indrelid), indnullsnotdistinct FROM pg_index"
                " JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = {}::regclass AND relname = {}"
                " AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = indrelid AND attname <> ALL({})"
                " AND (attnum = ANY(indkey) OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass"
                " AND objid = indexrelid AND refobjid = indrelid AND refobjsubid = attnum)))"
            ).format(self.plan.table, index, self.plan.columns)
        )
        if not found:
            return []
        [[keys, condition, are_nulls_equal]] = found
        # else each line would find its own row
        await self.connection.execute('ROLLBACK TO SAVEPOINT "import"')
        where = condition or "true"
        names = [f"k{at}" for at in range(len(keys))]
        equals = "IS NOT DISTINCT FROM" if are_nulls_equal else "="
        same = " AND ".join(f"({key}) {equals} {name}" for key, name in zip(keys, names, strict=True))
        named = ", ".join(f"{key} AS {name}" for key, name in zip(keys, names, strict=True))
        nulls = "" if are_nulls_equal else "".join(f" AND ({key}) IS NOT NULL" for key in keys)
        nth = f'row_number() OVER (PARTITION BY {", ".join(keys)} ORDER BY "import line")'
        new = f'SELECT "import line" AS line, {nth} AS nth, {named} FROM "import rows" WHERE {where}'
        found = await self._rows(
            f"SELECT line FROM ({new}{nulls}) AS new WHERE nth > 1 OR EXISTS"
            f" (SELECT FROM {self.plan.table} WHERE {where} AND {same}) ORDER BY line LIMIT {limit:d}"
        )
        return [line for (line,) in found]

    async def _first_refused(self, batch: str) -> int:
        """Return the first line of a batch that Postgres refuses after the lines before it, found by halving.

        The lines before it are left inserted: the caller has to roll back.
        """
        [[low, high]] = await self._rows(
            f'SELECT min("import line"), max("import line") FROM "import rows" WHERE {batch}'
        )
        while low < high:
            middle = (low + high) // 2
            try:
                await self._insert(f'{batch} AND "import line" BETWEEN {low} AND {middle}')
                low = middle + 1
            except (psycopg.IntegrityError, psycopg.DataError):
                high = middle
        return int(low)

    async def _rows(self, query: str | sql.Composed) -> list[Any]:
        with DB:
            return await (await self.connection.execute(query)).fetchall()


def _is_of_values(error: psycopg.Error) -> bool:
    """Whether a value is at fault: it does not fit its type, is too long, or is nested too deep."""
    return (error.sqlstate or "")[:2] in ("22", "54")
