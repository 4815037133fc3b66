"""Runs a compiled statement the way of the ORM's own, so that Silk and the debug toolbar see it.

Silk wraps SQLCompiler.execute_sql, the toolbar the cursor of Django's connection: a compiler whose SQL is written
already passes both. The parameters stay texts without a type, as in the native pool, so Postgres reads them the same.
"""

from collections.abc import Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connection
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.constants import CURSOR
from psycopg.pq.abc import PGresult

from ops.postgres.statement import Statement


class Written(SQLCompiler):
    """A compiler of one statement, with its parameters."""

    def __init__(self, statement: Statement, parameters: Sequence[bytes | None]) -> None:
        super().__init__(Query(None), connection, DEFAULT_DB_ALIAS)
        self.sql = statement.template
        self.parameters = tuple(None if text is None else text.decode() for text in parameters)

    def as_sql(self, *_args: Any, **_options: Any) -> tuple[str, Any]:
        return self.sql, self.parameters


def fetch(statement: Statement, parameters: Sequence[bytes | None]) -> PGresult:
    """Postgres's answer. Raises psycopg's errors, as the native pool does."""
    try:
        with Written(statement, parameters).execute_sql(CURSOR) as cursor:
            answer: PGresult = cursor.pgresult
    except Error as error:
        raise error.__cause__ or error from None
    return answer
