"""Runs a compiled statement on Django's own connection, as the ORM does, where no native pool is open.

The statement sees the rows of the transaction on Django's connection, such as a test's. Silk and the debug toolbar
see the statement: Silk wraps SQLCompiler.execute_sql, the toolbar wraps the cursor of Django's connection, and
`StatementCompiler` uses both. The parameters stay texts without a type, so Postgres reads them as in the native pool.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connection
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.constants import CURSOR
from django.db.transaction import atomic
from psycopg.pq.abc import PGresult

from ops.postgres.statement import Statement


class StatementCompiler(SQLCompiler):
    """A compiler of one statement, with its parameters."""

    def __init__(self, statement: Statement, parameters: Sequence[bytes | None]) -> None:
        super().__init__(Query(None), connection, DEFAULT_DB_ALIAS)
        self.sql = statement.template
        self.parameters = tuple(None if text is None else text.decode() for text in parameters)

    def as_sql(self, *_args: Any, **_options: Any) -> tuple[str, Any]:
        return self.sql, self.parameters


def fetch(statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
    """Run a statement, and return Postgres's result. Raises psycopg's errors, as the native pool does.

    In a transaction, such as a test's, a statement that changes data gets a savepoint: if it fails, the transaction
    stays usable. In the native pool such a statement is a transaction of its own.

    A connection that was not open before is closed again: outside a request, nothing else closes the connection of
    this thread.
    """
    was_open = connection.connection is not None
    guard = atomic() if connection.in_atomic_block and not statement.repeatable else nullcontext()
    try:
        with guard, StatementCompiler(statement, parameters).execute_sql(CURSOR) as cursor:
            result: PGresult = cursor.pgresult
    except Error as error:
        raise error.__cause__ or error from None
    finally:
        if not was_open:
            connection.close()
    return result
