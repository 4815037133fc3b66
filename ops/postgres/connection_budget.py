"""The connection budget: the connections that all workers may open at worst, and the room for them in Postgres."""

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from django.conf import settings
from django.db import OperationalError, connections
from psycopg import Connection

logger = logging.getLogger(__name__)

OTHER_CONNECTIONS = 10  # at least, for migrations, psql and monitoring; more if other programs hold more
PSYCOPG_MIN_SIZE = 4  # psycopg_pool's own min_size, which is also its max_size where none is given

# A role without pg_read_all_stats sees null as the type of other roles' backends.
LIMITS_QUERY = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
              AND (datname <> current_database() OR application_name <> current_setting('application_name')))
"""


@dataclass(frozen=True, kw_only=True)
class ConnectionBudget:
    workers: int
    sync: int  # most connections of a worker's sync pool
    native: int  # of its native pool
    imports: int  # of the imports that it runs at once
    snapshots: int  # of the statistics that it computes
    exports: int  # of the exports that it runs at once
    maximum: int  # max_connections
    superusers: int  # superuser_reserved_connections
    reserved: int  # reserved_connections
    others: int  # connections of other programs and databases, at least OTHER_CONNECTIONS

    @classmethod
    def measure(cls, alias: str) -> Self:
        """Take the settings, and ask Postgres. Raises Django's OperationalError if it cannot be reached."""
        with connect_outside_pools(alias) as connection, connections[alias].wrap_database_errors:
            row: Any = connection.execute(LIMITS_QUERY).fetchone()
        maximum, superusers, reserved, others = row
        pool = pool_of(connections[alias].settings_dict)
        sizes = pool if isinstance(pool, dict) else {}
        return cls(
            workers=settings.WEB_CONCURRENCY,
            sync=int(sizes.get("max_size") or sizes.get("min_size", PSYCOPG_MIN_SIZE)),
            native=settings.NATIVE_POOL.max_size if alias == "default" else 0,
            imports=settings.IMPORT_CONCURRENCY if alias == "default" else 0,
            snapshots=settings.SNAPSHOT_CONNECTIONS if alias == "default" else 0,
            exports=settings.EXPORT_CONCURRENCY if alias == "default" else 0,
            maximum=maximum,
            superusers=superusers,
            reserved=reserved,
            others=max(OTHER_CONNECTIONS, others),
        )

    @property
    def worst(self) -> int:
        """The connections that all workers together may open."""
        long = self.imports + self.exports + self.snapshots
        return self.workers * (self.sync + self.native + long)

    @property
    def worst_of_two_releases(self) -> int:
        """The connections of two releases: one that stops keeps its own until its last request has ended."""
        return 2 * self.worst

    @property
    def room(self) -> int:
        """The connections that Postgres has left for the workers."""
        return self.maximum - self.superusers - self.reserved - self.others

    def __str__(self) -> str:
        return (
            f"{self.workers} workers (WEB_CONCURRENCY) x ({self.sync} of the sync pool + {self.native} of the "
            f"native pool + {self.imports} for imports + {self.exports} for exports + {self.snapshots} for "
            f"statistics) = {self.worst} connections at worst, {self.worst_of_two_releases} while two releases run; "
            f"Postgres has room for {self.room}: {self.maximum} (max_connections) "
            f"- {self.superusers} (superuser_reserved_connections) - {self.reserved} (reserved_connections) "
            f"- {self.others} (others)"
        )


def pool_of(database: Mapping[str, Any]) -> Any:
    """Return the `pool` of an entry of DATABASES, also where manage.py has moved it; false if there is none."""
    return database.get("POOL") or database.get("OPTIONS", {}).get("pool")


def connect_outside_pools(alias: str) -> "Connection[Any]":
    """Open a connection with the parameters of Django's own, but outside Django and its pool.

    Django would correct the time zone of the session, and the pool's threads would outlive the query. Raises Django's
    OperationalError.
    """
    wrapper = connections[alias].copy()
    wrapper.settings_dict["OPTIONS"].pop("pool", None)
    with wrapper.wrap_database_errors:
        connection: Connection[Any] = wrapper.get_new_connection(wrapper.get_connection_params())
    connection.autocommit = True
    return connection


def report() -> None:
    """Log the budget, in a thread of its own: a Postgres that is down or frozen does not delay the start.

    The log is a warning if the connections do not fit; with REUSE_PORT, if those of two releases do not. Behind a
    pooler nothing is logged: the pooler bounds the connections.
    """

    def log() -> None:
        for alias in connections:
            try:
                budget = ConnectionBudget.measure(alias)
            except OperationalError as error:
                logger.debug("The database %r was not asked for its connections: %s", alias, error)
            else:
                most = budget.worst_of_two_releases if settings.REUSE_PORT else budget.worst
                level = logging.WARNING if most > budget.room else logging.INFO
                logger.log(level, "Database %r: %s", alias, budget)

    if not settings.DATABASE_POOLER:
        threading.Thread(target=log, daemon=True, name="connection budget").start()
