"""Times the sync ORM's queries on the stopwatch of their request. The native pool times its own statements."""

from collections.abc import Callable
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ops.telemetry.stopwatch import DB


def time_queries(connection: BaseDatabaseWrapper, **_signal: object) -> None:
    """Time a connection's queries. Django sends connection_created at each checkout, so the wrapper may be there."""
    if _timed not in connection.execute_wrappers:
        connection.execute_wrappers.append(_timed)


def _timed(execute: Callable[..., Any], *arguments: Any) -> Any:
    with DB:
        return execute(*arguments)
