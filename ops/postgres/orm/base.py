"""The sync ORM's connections: the wait for a connection counts as the stage `queue`, and each outcome is counted.

The native pool does the same for itself (ops/postgres/pool.py). For the sync ORM, the database backend has to do it:
Django makes the pool itself, and sends its signal connection_created only after the wait.
"""

from threading import Lock
from time import perf_counter
from typing import Any

from django.db.backends.postgresql import base
from psycopg_pool import PoolTimeout, TooManyRequests

from ops.postgres.checkouts import CHECKOUTS, SHED, WAITS
from ops.telemetry.stopwatch import QUEUE

TAKEN, TIMED_OUT, REFUSED = (CHECKOUTS.labels("sync", outcome) for outcome in ("ok", "timeout", "refused"))
WAITED = WAITS.labels("sync")
_counting = Lock()  # sync requests count in threads, at the same time


class DatabaseWrapper(base.DatabaseWrapper):
    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Return a connection. Raises PoolTimeout if the pool has none in time, TooManyRequests if too many wait."""
        if not self.pool:
            return super().get_new_connection(conn_params)
        began, outcome = perf_counter(), None
        try:
            with QUEUE:
                connection = super().get_new_connection(conn_params)
            outcome = TAKEN
        except PoolTimeout:
            outcome = TIMED_OUT
            raise
        except TooManyRequests:
            outcome = REFUSED
            raise
        finally:
            with _counting:
                if outcome is not None:
                    outcome.value += 1
                    WAITED.observe(perf_counter() - began)
                SHED.value += outcome is REFUSED
        return connection
