"""The conditions of a run's figures: the machine, the code, the servers behind the contenders."""

import platform
import subprocess
import time
from typing import Any

import redis
from psycopg import sql

from ops.tools.lab.cpu import CORES
from ops.tools.lab.failure import LabError
from ops.tools.lab.scenarios import Connection
from ops.tools.lab.servers import ROOT


def conditions(database: Connection, table: str, cache: dict[str, Any] | None) -> dict[str, Any]:
    """Return the conditions of a run by name, among them the number of rows of `table`.

    `cache` is the result of redis_information(), or None if no contender needs Redis.
    """
    version, commits, rows = (
        database.execute(query).fetchall()[0]["value"]
        for query in (
            sql.SQL("SELECT current_setting('server_version') AS value"),
            sql.SQL(
                "SELECT format('fsync %s, synchronous_commit %s', current_setting('fsync'),"
                " current_setting('synchronous_commit')) AS value"
            ),
            sql.SQL("SELECT count(*) AS value FROM {}").format(sql.Identifier(table)),
        )
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    valkey = cache and cache.get("valkey_version")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": CORES,
        "postgres": version,
        "commits": commits,
        "redis": cache and (f"Valkey {valkey}" if valkey else f"Redis {cache['redis_version']}"),
        "rows": rows,
    }


def redis_information(url: str) -> dict[str, Any]:
    """Return the section `server` of Redis's INFO. Raises LabError if Redis does not answer."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            found: dict[str, Any] = client.info("server")
    except (redis.RedisError, ValueError) as error:
        raise LabError(f"REDIS_URL: {error}") from None
    return found
