"""Whether Postgres answers: a check of /healthz."""

from typing import Any

from ops.postgres.pool import fetch
from ops.postgres.statement import Statement

QUERY = Statement("SELECT 1", (), quick=True)


async def ask_postgres() -> dict[str, Any]:
    """Ask as requests do, through the pool. Raises psycopg.OperationalError."""
    await fetch(QUERY, [])
    return {}
