"""The limits of a database session that serves requests, as opposed to one that runs a management command."""

from django.conf import settings
from django.db import connections

from ops.postgres.options import startup_options


def limit_sessions() -> None:
    """Open every later database session of this process with settings.REQUEST_SESSION.

    They are set by libpq as the session starts, so they cost no round trip: a receiver of connection_created
    would run a SET for each checkout. Call it once, before the first connection. A pooler takes no such
    parameters: there they are the role's to bring, and a system check asks for them.
    """
    if settings.DATABASE_POOLER:
        return
    limits = startup_options(settings.REQUEST_SESSION)
    for database in connections.settings.values():
        database["OPTIONS"]["options"] += f" {limits}"
