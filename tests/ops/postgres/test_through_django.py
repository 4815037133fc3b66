"""A compiled statement on Django's connection: answers and errors are the native pool's."""

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ops.postgres import through_django
from ops.postgres.statement import Param, Statement

pytestmark = pytest.mark.django_db
DIVIDE = Statement("SELECT '100%%', 6 / %s", (Param("by"),))


def test_django_logs_it_with_its_parameters() -> None:
    with CaptureQueriesContext(connection) as queries:
        answer = through_django.fetch(DIVIDE, DIVIDE.bind({"by": 3}))
    assert [query["sql"] for query in queries] == ["SELECT '100%', 6 / '3'"]
    assert [answer.get_value(0, column) for column in range(2)] == [b"100%", b"2"]


def test_an_error_is_psycopgs() -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        through_django.fetch(DIVIDE, DIVIDE.bind({"by": 0}))
