"""What only Postgres can tell: room for connections, and what a session is. These run where a database is named."""

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from psycopg import OperationalError

from ops.checks.messages import Messages, error, warning
from ops.postgres.sizes import Sizes, session

UTC = ("UTC", "Etc/UTC")  # one zone; the second is how Debian's packages and images write it
ASK = "SELECT lower(name), setting FROM pg_settings WHERE lower(name) = ANY(%s)"


def check_connections(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """The pools of all workers fit into Postgres. Behind a pooler it is the pooler that bounds them."""
    found: Messages = []
    for alias in () if settings.DATABASE_POOLER else databases or ():
        with suppress(OperationalError):  # check_sessions says so
            if (sizes := Sizes.ask(alias)).worst > sizes.room:
                found.append(_too_many(alias, sizes))
    return found


def check_sessions(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """A session is what the settings want, whoever has to see to it: behind a pooler the role's defaults."""
    wanted: dict[str, Any] = settings.SESSION | (settings.REQUEST_SESSION if settings.DATABASE_POOLER else {})
    found: Messages = []
    for alias in databases or ():
        try:
            actual = _ask(alias, wanted)
        except OperationalError as reason:
            found.append(_unreachable(alias, reason))
        else:
            found += [_differs(alias, name, actual[name], wanted[name]) for name in wanted if name in actual]
    return found


def _ask(alias: str, wanted: dict[str, Any]) -> dict[str, str]:
    """The settings of a session of `alias` that are not as wanted."""
    with session(alias) as connection:
        rows: Any = connection.execute(ASK, [[name.lower() for name in wanted]]).fetchall()
    actual = {name: dict(rows)[name.lower()] for name in wanted}
    if actual.get("TimeZone") in UTC:
        del actual["TimeZone"]
    return {name: value for name, value in actual.items() if value != str(wanted[name])}


def _too_many(alias: str, sizes: Sizes) -> CheckMessage:
    return warning(
        "060",
        f"Database {alias!r}: {sizes}.",
        "Lower WEB_CONCURRENCY or the pools' max_size in config/settings.py, raise max_connections, or put a "
        "pooler such as PgBouncer between and set DATABASE_POOLER.",
    )


def _unreachable(alias: str, reason: OperationalError) -> CheckMessage:
    return warning(
        "061",
        f"Database {alias!r} could not be asked: {' '.join(str(reason).split())}",
        "Check DATABASE_URL. A pooler that does not support the startup parameter `options` wants DATABASE_POOLER.",
    )


def _differs(alias: str, name: str, actual: str, wanted: object) -> CheckMessage:
    message = f"A session of database {alias!r} has {name} = {actual!r}, not {str(wanted)!r}."
    hint = f"Behind a pooler the role has to bring it: ALTER ROLE ... SET {name} = '{wanted}'."
    if name == "TimeZone":
        return error(
            "062", f"{message} Postgres writes the JSON: every timestamp would be spelled in it.", hint
        )
    return warning("063", message, hint)
