"""What only Postgres can tell: room for connections, and what a session is. These run where a database is named.

One that cannot be reached ends the command, as it ends every other.
"""

from collections.abc import Collection
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage

from ops.checks.messages import Messages, error, warning
from ops.postgres.sizes import Sizes, session

UTC = ("UTC", "Etc/UTC")  # one zone; the second is how Debian's packages and images write it
ASK = "SELECT lower(name), setting FROM pg_settings WHERE lower(name) = ANY(%s)"


def check_connections(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """The pools of all workers fit into Postgres. Behind a pooler it is the pooler that bounds them."""
    asked = () if settings.DATABASE_POOLER else databases or ()
    return [
        warning(
            "060",
            f"Database {alias!r}: {sizes}.",
            "Lower WEB_CONCURRENCY or the pools' max_size in config/settings.py, raise max_connections, or put a "
            "pooler such as PgBouncer between and set DATABASE_POOLER.",
        )
        for alias in asked
        if (sizes := Sizes.ask(alias)).worst > sizes.room
    ]


def check_sessions(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """A session is what the settings want, whoever has to see to it: behind a pooler the role's defaults."""
    wanted: dict[str, Any] = settings.SESSION | (settings.REQUEST_SESSION if settings.DATABASE_POOLER else {})
    return [
        _differs(alias, name, actual, wanted[name])
        for alias in databases or ()
        for name, actual in _ask(alias, wanted).items()
    ]


def _ask(alias: str, wanted: dict[str, Any]) -> dict[str, str]:
    """The settings of a session of `alias` that are not as wanted."""
    with session(alias) as connection:
        rows: Any = connection.execute(ASK, [[name.lower() for name in wanted]]).fetchall()
    actual = {name: dict(rows)[name.lower()] for name in wanted}
    if actual.get("TimeZone") in UTC:
        del actual["TimeZone"]
    return {name: value for name, value in actual.items() if value != str(wanted[name])}


def _differs(alias: str, name: str, actual: str, wanted: object) -> CheckMessage:
    message = f"A session of database {alias!r} has {name} = {actual!r}, not {str(wanted)!r}."
    hint = f"Behind a pooler the role has to bring it: ALTER ROLE ... SET {name} = '{wanted}'."
    if name == "TimeZone":
        return error(
            "061", f"{message} Postgres writes the JSON: every timestamp would be spelled in it.", hint
        )
    return warning("062", message, hint)
