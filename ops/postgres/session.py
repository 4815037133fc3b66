"""The parameters of a worker's database sessions: time limits and formats, set as a session starts, and verified.

Sessions of management commands have only the formats and the lock_timeout of settings.SESSION.
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
    """Add settings.REQUEST_SESSION to the startup options of all database sessions that this process opens later.

    libpq sends them as it opens a session, so they cost no round trip. Django's pool sends connection_created at each
    checkout, so a receiver of that would run a SET each time. Call it before the first connection. A pooler takes no
    startup options: there nothing is added, and the role must have these settings, which `verify` and a system check
    look at.
    """
    if settings.DATABASE_POOLER:
        return
    added_options = startup_options(settings.REQUEST_SESSION)
    for database in connections.settings.values():
        options = database["OPTIONS"].get("options", "")
        if added_options not in options:
            database["OPTIONS"]["options"] = f"{options} {added_options}".strip()


@asynccontextmanager
async def startup_parameters() -> AsyncIterator[None]:
    """Add the startup options in a worker's lifespan, before its pools open; an import alone adds none."""
    add_startup_parameters()
    yield


def differences(wanted: Mapping[str, object], rows: list[tuple[str, str]]) -> dict[str, str]:
    """Return the actual values of the settings in `wanted` that differ in `rows`, the result of SETTINGS_QUERY."""
    actual = {name: dict(rows).get(name.lower(), "") for name in wanted}
    if actual.get("TimeZone") == "Etc/UTC":  # the same zone, as Debian's packages and images write it
        actual["TimeZone"] = "UTC"
    if "DateStyle" in actual:
        actual["DateStyle"] = actual["DateStyle"].split(",")[0]  # the part after the comma is about input
    return {name: value for name, value in actual.items() if value != str(wanted[name])}


def remedy(name: str, wanted: object) -> str:
    """Return the sentence that tells an operator how the session parameter `name` gets the value `wanted`."""
    if settings.DATABASE_POOLER:
        return f"Behind a pooler the role has to bring it: ALTER ROLE ... SET {name} = '{wanted}'."
    return "The connection's `options` did not arrive: if a pooler stands between, set DATABASE_POOLER."


async def verify(connection: AsyncConnection[Any]) -> None:
    """Check the settings of a new connection, in one round trip.

    Closes it and raises OperationalError if a format is not as in SESSION_FORMAT. Any other difference is logged,
    once a process.
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
