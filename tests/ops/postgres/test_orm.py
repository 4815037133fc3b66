"""The sync ORM's pool: it lets a crowd wait, the wait is on the stopwatch, and what it refuses is counted."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from threading import Event
from typing import Any

import pytest
from django.db import OperationalError, connection
from psycopg_pool import PoolClosed
from pytest_django import DjangoDbBlocker, Settings

from ops.postgres.checkouts import SHED
from ops.postgres.orm.base import REFUSED, TAKEN, TIMED_OUT, WAITED
from ops.telemetry.stopwatch import DB, MIDDLEWARE, QUEUE, Stopwatch, current
from tests.ops.asgi.views import DEADLINE

CLIENTS = 64


def select(sql: str = "SELECT 1") -> int:
    """In a thread of its own, as a request does it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


@contextmanager
def pooled(blocker: DjangoDbBlocker, **options: object) -> Iterator[Any]:
    """The pool of the default connection, with these options besides the settings'."""
    wrapper: Any = connection
    before = wrapper.settings_dict["OPTIONS"]["pool"]
    with blocker.unblock():
        wrapper.close()  # what another test may have left open in this thread
        wrapper.close_pool()
        wrapper.settings_dict["OPTIONS"]["pool"] = before | options
        try:
            wrapper.pool.open()
            yield wrapper.pool
        finally:
            wrapper.close_pool()
            wrapper.settings_dict["OPTIONS"]["pool"] = before


def counts() -> tuple[float, ...]:
    return TAKEN.value, TIMED_OUT.value, REFUSED.value, SHED.value, sum(WAITED.counts)


def test_no_connection_is_none_taken(django_db_blocker: DjangoDbBlocker) -> None:
    with pooled(django_db_blocker) as pool:
        pool.close()
        before = counts()
        with pytest.raises(PoolClosed):
            connection.get_new_connection(connection.get_connection_params())
        assert counts() == before


def test_a_crowd_is_served(django_db_blocker: DjangoDbBlocker, settings: Settings) -> None:
    """As many clients as the native pool serves, each of which writes for 5 ms, over and over."""
    taken = TAKEN.value
    with pooled(django_db_blocker), ThreadPoolExecutor(CLIENTS) as clients:
        answers = [*clients.map(lambda _: select("SELECT count(pg_sleep(0.005))"), range(6 * CLIENTS))]
    assert answers == [1] * 6 * CLIENTS
    assert TAKEN.value - taken == 6 * CLIENTS


def test_the_wait_is_the_stage_queue(django_db_blocker: DjangoDbBlocker) -> None:
    watch = Stopwatch(b"")
    with pooled(django_db_blocker, max_size=1) as pool, ThreadPoolExecutor(1) as thread:
        with pool.connection(timeout=DEADLINE):
            context = copy_context()
            context.run(current.set, watch)
            asked = thread.submit(context.run, select)
            while not pool.get_stats()["requests_waiting"]:
                Event().wait(0.001)
            Event().wait(0.05)
        assert asked.result(DEADLINE) == 1
    assert watch.seconds[QUEUE.index] > 0.05
    assert watch.seconds[DB.index] > 0
    assert watch.active == [MIDDLEWARE.index]


def test_refusals_and_time_outs_are_counted(django_db_blocker: DjangoDbBlocker) -> None:
    options = {"max_size": 1, "max_waiting": 1, "timeout": 0.3}
    with (
        pooled(django_db_blocker, **options) as pool,
        ThreadPoolExecutor(2) as threads,
        ExitStack() as held,
    ):
        held.enter_context(pool.connection(timeout=DEADLINE))
        before = counts()
        waiting = threads.submit(select)
        while not pool.get_stats()["requests_waiting"]:
            Event().wait(0.001)
        with pytest.raises(OperationalError):
            threads.submit(select).result(DEADLINE)
        with pytest.raises(OperationalError):
            waiting.result(DEADLINE)
        after = counts()
    assert [one - other for one, other in zip(after, before, strict=True)] == [0, 1, 1, 1, 2]
