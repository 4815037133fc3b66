"""What the figures of a run hold for: the machine, the code, the servers behind the contenders."""

import platform
import subprocess
import time
from typing import Any

import redis

from ops.lab.cpu import CORES
from ops.lab.failure import LabError
from ops.lab.scenarios import Connection
from ops.lab.servers import ROOT


def conditions(database: Connection, cache: dict[str, Any] | None) -> dict[str, Any]:
    """`cache` is what redis_information() found, or None if nobody needs Redis."""
    version, rows = (
        database.execute(query).fetchall()[0]["value"]
        for query in (
            "SELECT current_setting('server_version') AS value",
            "SELECT count(*) AS value FROM products_product",
        )
    )
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": CORES,
        "postgres": version,
        "redis": cache and _named(cache),
        "rows": rows,
    }


def redis_information(url: str) -> dict[str, Any]:
    """What the server says of itself; raises LabError if it says nothing."""
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            found: dict[str, Any] = client.info("server")
    except (redis.RedisError, ValueError) as error:
        raise LabError(f"REDIS_URL: {error}") from None
    return found


def _named(cache: dict[str, Any]) -> str:
    valkey = cache.get("valkey_version")
    return f"Valkey {valkey}" if valkey else f"Redis {cache['redis_version']}"
