"""The parameters of a worker's database sessions: time limits and formats, set as a session starts, and verified.

Sessions of management commands have no time limits.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from django.conf import settings
from django.db import connections
from psycopg import AsyncConnection, OperationalError

from ops.postgres.options import startup_options

logger = logging.getLogger(__name__)

SETTINGS_QUERY = "SELECT lower(name), setting FROM pg_settings WHERE lower(name) = ANY(%s)"


def add_startup_parameters() -> None:
    """Open every later database session of this process with settings.REQUEST_SESSION.

    libpq sets them as the session starts, so they cost no round trip: a receiver of connection_created would run a
    SET for each checkout. Call it before the first connection. A pooler takes no startup parameters: there the role
    has to bring them, which `verify` and a system check look at.
    """
    if settings.DATABASE_POOLER:
        return
    limits = startup_options(settings.REQUEST_SESSION)
    for database in connections.settings.values():
        options = database["OPTIONS"].get("options", "")
        if limits not in options:
            database["OPTIONS"]["options"] = f"{options} {limits}".strip()


@asynccontextmanager
async def startup_parameters() -> AsyncIterator[None]:
    """For the lifespan of a worker, before its pools. A process that only imports the application is left alone."""
    add_startup_parameters()
    yield


def differences(wanted: Mapping[str, object], rows: list[tuple[str, str]]) -> dict[str, str]:
    """The settings of a session that are not as wanted, by SETTINGS_QUERY's rows."""
    actual = {name: dict(rows).get(name.lower(), "") for name in wanted}
    if actual.get("TimeZone") == "Etc/UTC":  # one zone: how Debian's packages and images write it
        actual["TimeZone"] = "UTC"
    if "DateStyle" in actual:
        actual["DateStyle"] = actual["DateStyle"].split(",")[0]  # the rest is about input
    return {name: value for name, value in actual.items() if value != str(wanted[name])}


def remedy(name: str, wanted: object) -> str:
    """The sentence that tells an operator how the session parameter `name` gets the value `wanted`."""
    if settings.DATABASE_POOLER:
        return f"Behind a pooler the role has to bring it: ALTER ROLE ... SET {name} = '{wanted}'."
    return "The connection's `options` did not arrive: if a pooler stands between, set DATABASE_POOLER."


async def verify(connection: AsyncConnection[Any]) -> None:
    """Refuse a new connection whose formats are not the service's. Any other difference is logged, once a process.

    Raises OperationalError. It takes one round trip for each connection that is opened.
    """
    wanted: dict[str, object] = settings.SESSION | settings.REQUEST_SESSION
    cursor = await connection.execute(SETTINGS_QUERY, [[name.lower() for name in wanted]], prepare=False)
    found = differences(wanted, await cursor.fetchall())
    if not found:
        return
    first = next(iter(found))
    said = ", ".join(f"{name} = {value!r}, not {str(wanted[name])!r}" for name, value in found.items())
    said = f"A session of the database has {said}. {remedy(first, wanted[first])} More: docs/checks.md"
    if found.keys() & settings.SESSION_FORMAT.keys():
        await connection.close()
        raise OperationalError(said)
    _warn(said)


@cache
def _warn(message: str) -> None:
    logger.warning(message)
