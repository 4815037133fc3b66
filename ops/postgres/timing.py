"""The sync ORM's queries on the stopwatch of the request that makes them. The native pool times its own."""

from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ops.telemetry.stopwatch import DB


def time_queries(connection: BaseDatabaseWrapper, **_signal: object) -> None:
    """A receiver of connection_created, which Django sends at each checkout, also of a connection that is wrapped."""
    if _timed not in connection.execute_wrappers:
        connection.execute_wrappers.append(_timed)


def _timed(execute: Callable[..., Any], *arguments: Any) -> Any:
    with DB:
        return execute(*arguments)
