"""Checks of DATABASES: pools, time-outs, and the limits of a pooler such as PgBouncer."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings

from ops.checks.messages import Messages, error, warning
from ops.postgres.connection_budget import pool_of


def check_conn_max_age(**_kwargs: Any) -> Messages:
    """Check that only the pool keeps connections."""
    return [
        error(
            "040",
            f"DATABASES[{alias!r}]['CONN_MAX_AGE'] is {age!r}: under ASGI a request's connection is kept in a "
            "thread that no other request uses, and with a pool Django refuses it.",
            "Set it to 0. OPTIONS['pool'] keeps connections open between requests.",
        )
        for alias, database in _databases()
        if (age := database.get("CONN_MAX_AGE", 0)) != 0
    ]


def check_pool(**_kwargs: Any) -> Messages:
    """Check that the sync ORM has a pool."""
    return [
        warning(
            "041",
            f"DATABASES[{alias!r}]['OPTIONS']['pool'] is {pool!r}: every sync request opens a connection of its "
            "own, and nothing bounds how many.",
            "Give it SYNC_POOL, with a max_size.",
        )
        for alias, database in _databases()
        if not (pool := pool_of(database))
    ]


def check_atomic_requests(**_kwargs: Any) -> Messages:
    return [
        error(
            "042",
            f"DATABASES[{alias!r}]['ATOMIC_REQUESTS'] is True: Django refuses to run async views in it.",
            "Set it to False, and use transaction.atomic() where a write needs it.",
        )
        for alias, database in _databases()
        if database.get("ATOMIC_REQUESTS")
    ]


def check_statement_timeout(**_kwargs: Any) -> Messages:
    """Check that a request's statements have a time limit. Behind a pooler, see check_sessions, too."""
    limit = settings.REQUEST_SESSION.get("statement_timeout")
    if limit:
        return []
    return [
        warning(
            "043",
            f"REQUEST_SESSION['statement_timeout'] is {limit!r}: one slow statement holds a connection for ever.",
            "Give it milliseconds, fewer than NATIVE_POOL.deadline.",
        )
    ]


def check_pooler(**_kwargs: Any) -> Messages:
    """Check that settings which a pooler in transaction mode forbids are off."""
    if not settings.DATABASE_POOLER:
        return []
    pooler = settings.DATABASE_POOLER
    forbidden = ("options",) if pooler == "prepared" else ("prepare_threshold", "options")
    found = []
    for alias, database in _databases():
        options = database["OPTIONS"]
        found += [
            f"DATABASES[{alias!r}]['OPTIONS'][{name!r}] is {options[name]!r}"
            for name in forbidden
            if options.get(name) not in (None, "")
        ]
        if not database.get("DISABLE_SERVER_SIDE_CURSORS"):
            found.append(f"DATABASES[{alias!r}]['DISABLE_SERVER_SIDE_CURSORS'] is False")
    if settings.NATIVE_POOL.prepare and pooler != "prepared":
        found.append(f"NATIVE_POOL.prepare is {settings.NATIVE_POOL.prepare}")
    return [
        error(
            "044",
            f"{each}, while DATABASE_POOLER is {pooler!r}: the next statement may run in another session.",
            "Let DATABASE_POOLER decide it, as config/settings.py does for the default database.",
        )
        for each in found
    ]


def _databases() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for alias, database in settings.DATABASES.items():
        yield alias, {"OPTIONS": {}, **database}
