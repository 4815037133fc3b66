"""Checks that ask Postgres: the room for connections, and the settings of a session. They need `--database`.

A database that cannot be reached ends the command with its error.
"""

from collections.abc import Collection, Iterator
from typing import Any

from django.conf import settings

from ops.checks.messages import Messages, error, warning
from ops.postgres.connection_budget import ConnectionBudget, connect_outside_pools
from ops.postgres.session import SETTINGS_QUERY, differences, remedy


def check_connections(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """Check that the pools of all workers fit into Postgres."""
    return [
        warning(
            "060",
            f"Database {alias!r}: {budget}.",
            "Lower WEB_CONCURRENCY or the pools' max_size in config/settings.py, raise max_connections, or put a "
            "pooler such as PgBouncer between and set DATABASE_POOLER.",
        )
        for alias, budget in _budgets(databases)
        if budget.worst > budget.room
    ]


def check_two_releases(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """Check that the pools of two releases fit, if those of one do: a deployment without a pause runs two at once."""
    return [
        warning(
            "063",
            f"Two releases at once do not fit. Database {alias!r}: {budget}.",
            "As for ops.W060; or stop the old release before the new one starts.",
        )
        for alias, budget in _budgets(databases)
        if budget.worst <= budget.room < budget.worst_of_two_releases
    ]


def _budgets(databases: Collection[str] | None) -> Iterator[tuple[str, ConnectionBudget]]:
    """Yield the budget of each database that may be asked; none behind a pooler, which bounds the connections."""
    for alias in () if settings.DATABASE_POOLER else databases or ():
        yield alias, ConnectionBudget.measure(alias)


def check_sessions(databases: Collection[str] | None = None, **_kwargs: Any) -> Messages:
    """Check that a session has the wanted settings. Behind a pooler, the role must bring those of a request, too."""
    wanted: dict[str, Any] = settings.SESSION | (settings.REQUEST_SESSION if settings.DATABASE_POOLER else {})
    found: Messages = []
    for alias in databases or ():
        with connect_outside_pools(alias) as connection:
            rows: Any = connection.execute(SETTINGS_QUERY, [[name.lower() for name in wanted]]).fetchall()
        for name, actual in differences(wanted, rows).items():
            message = f"A session of database {alias!r} has {name} = {actual!r}, not {str(wanted[name])!r}."
            hint = remedy(name, wanted[name])
            if name in settings.SESSION_FORMAT:
                message += (
                    " Postgres writes the JSON: its values would be spelled otherwise. No request is served."
                )
                found.append(error("061", message, hint))
            else:
                found.append(warning("062", message, hint))
    return found
