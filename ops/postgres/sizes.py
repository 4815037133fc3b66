"""Workers against connections: what the pools may open at worst, and what Postgres has room for."""

import logging
import threading
from dataclasses import dataclass
from typing import Any, Self

from django.conf import settings
from django.db import OperationalError, connections
from psycopg import Connection

logger = logging.getLogger(__name__)

OTHERS = 10  # connections left for migrations, psql and monitoring, or as many as others hold already
PSYCOPG_MIN_SIZE = 4  # of a pool that names no sizes; without a max_size it is the most, too

ASK = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int,
       coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname IS NOT NULL AND application_name <> current_setting('application_name'))
"""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    workers: int
    sync: int  # connections of a worker's sync pool, at most
    native: int  # and of its native pool
    maximum: int  # max_connections
    superusers: int  # superuser_reserved_connections
    reserved: int  # reserved_connections
    others: int

    @classmethod
    def ask(cls, alias: str) -> Self:
        """Raises Django's OperationalError where the server cannot be reached."""
        with session(alias) as connection:
            row: Any = connection.execute(ASK).fetchone()
        maximum, superusers, reserved, others = row
        pools = {"sync": _sync(alias), "native": settings.NATIVE_POOL.max_size if alias == "default" else 0}
        server = {"maximum": maximum, "superusers": superusers, "reserved": reserved}
        return cls(workers=settings.WEB_CONCURRENCY, **pools, **server, others=max(OTHERS, others))

    @property
    def worst(self) -> int:
        return self.workers * (self.sync + self.native)

    @property
    def room(self) -> int:
        return self.maximum - self.superusers - self.reserved - self.others

    def __str__(self) -> str:
        return (
            f"{self.workers} workers (WEB_CONCURRENCY) x ({self.sync} of the sync pool + {self.native} of the "
            f"native pool) = {self.worst} connections at worst; Postgres has room for {self.room}: "
            f"{self.maximum} (max_connections) - {self.superusers} (superuser_reserved_connections) "
            f"- {self.reserved} (reserved_connections) - {self.others} (others)"
        )


def session(alias: str) -> "Connection[Any]":
    """A connection with the parameters of Django's, as Postgres opens it: Django would correct its time zone.

    Outside the pool, whose threads would outlive the question. Raises Django's OperationalError.
    """
    wrapper = connections[alias].copy()
    wrapper.settings_dict["OPTIONS"].pop("pool", None)
    with wrapper.wrap_database_errors:
        connection: Connection[Any] = wrapper.get_new_connection(wrapper.get_connection_params())
    connection.autocommit = True
    return connection


def report() -> None:
    """Log the sizes, in a thread of its own: a server that is down or frozen holds up no start.

    Behind a pooler it is the pooler that bounds the connections, and Postgres's numbers say nothing.
    """
    if not settings.DATABASE_POOLER:
        threading.Thread(target=_report, daemon=True, name="connection sizes").start()


def _report() -> None:
    for alias in connections:
        try:
            sizes = Sizes.ask(alias)
        except OperationalError as error:
            logger.debug("The database %r was not asked for its connections: %s", alias, error)
        else:
            level = logging.WARNING if sizes.worst > sizes.room else logging.INFO
            logger.log(level, "Database %r: %s", alias, sizes)


def _sync(alias: str) -> int:
    """The most connections that Django's pool of one worker opens. manage.py takes it out of OPTIONS."""
    pool = connections[alias].settings_dict["OPTIONS"].get("pool", settings.SYNC_POOL)
    sizes = pool if isinstance(pool, dict) else {}
    return int(sizes.get("max_size") or sizes.get("min_size", PSYCOPG_MIN_SIZE))
