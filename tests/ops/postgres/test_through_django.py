"""A compiled statement on Django's connection: answers and errors are the native pool's."""

from typing import Any

import psycopg
import pytest
from django.db import connection

from ops.postgres import through_django
from ops.postgres.statement import Param, Statement

pytestmark = pytest.mark.django_db
DIVIDE = Statement("SELECT '100%%', %s, 6 / %s", ("50%", Param("by")))


def test_django_sees_it_with_its_parameters() -> None:
    seen: list[tuple[str, Any]] = []

    def see(execute: Any, sql: str, parameters: Any, *rest: Any) -> Any:
        seen.append((sql, parameters))
        return execute(sql, parameters, *rest)

    with connection.execute_wrapper(see):
        answer = through_django.fetch(DIVIDE, DIVIDE.bind({"by": 3}))
    assert seen == [("SELECT '100%%', '50%%', 6 / %s", ("3",))]
    assert [answer.get_value(0, column) for column in range(3)] == [b"100%", b"50%", b"2"]


def test_an_error_is_psycopgs() -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        through_django.fetch(DIVIDE, DIVIDE.bind({"by": 0}))
