"""A table for each of the tests' own models, and what a compiled query answers there."""

from collections.abc import Callable

import pytest
from django.db import connection

from ops.postgres.statement import Statement
from tests.ops.postgres.models import TABLES

Run = Callable[..., list[bytes | None]]


@pytest.fixture
def tables(db: None) -> None:
    """In the test's own transaction, which undoes them."""
    with connection.schema_editor(atomic=False) as editor:
        for model in TABLES:
            editor.create_model(model)


@pytest.fixture
def run(tables: None) -> Run:
    """Run a statement where the tables are, as the pool would: through libpq, its values in text format."""

    def run(statement: Statement, **values: object) -> list[bytes | None]:
        connection.ensure_connection()
        result = connection.connection.pgconn.exec_params(statement.sql, statement.bind(values))
        assert not result.error_message, result.error_message.decode()
        return [result.get_value(row, 0) for row in range(result.ntuples)]

    return run
