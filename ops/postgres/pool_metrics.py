"""Gauges of the pools, sampled once a second. The pools themselves count events (ops/postgres/checkouts.py)."""

from django.conf import settings
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg_pool import ConnectionPool

from ops.postgres.pool import pools
from ops.telemetry.metrics import metrics

CONNECTIONS = metrics.gauge("postgres_pool_connections", "Connections of the pool.", "pool", "state")
WAITING = metrics.gauge("postgres_pool_waiting", "Requests that wait for a connection.", "pool")
MAX = metrics.gauge("postgres_pool_max", "Connections that the pool may have.", "pool")


def sample() -> None:
    # The sums of all native pools: a worker has one.
    idle, busy, waiting = map(sum, zip((0, 0, 0), *(pool.counts() for pool in pools.values()), strict=True))
    _set("native", idle, busy, waiting, settings.NATIVE_POOL.max_size)
    opened: dict[str, ConnectionPool] = getattr(DatabaseWrapper, "_connection_pools")  # noqa: B009  has no public name
    sync = opened.get("default")  # Django's property `pool` would make one
    if sync:
        stats = sync.get_stats()
        idle = stats["pool_available"]
        _set("sync", idle, stats["pool_size"] - idle, stats["requests_waiting"], sync.max_size)


def _set(name: str, idle: int, busy: int, waiting: int, maximum: int) -> None:
    CONNECTIONS.labels(name, "idle").value = idle
    CONNECTIONS.labels(name, "busy").value = busy
    WAITING.labels(name).value = waiting
    MAX.labels(name).value = maximum
