"""Whether Postgres answers: a check of /healthz."""

from typing import Any

from ops.postgres.pool import fetch
from ops.postgres.statement import Statement

QUERY = Statement("SELECT 1", (), quick=True)


async def ask_postgres() -> dict[str, Any]:
    """Run a statement through the pool, as requests do. Raises psycopg.OperationalError."""
    await fetch(QUERY, [])
    return {}
