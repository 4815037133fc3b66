"""What the metrics tell of the pools, looked at once a second. What happens in between, pool.py counts."""

from django.conf import settings
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg_pool import ConnectionPool

from ops.instruments.metrics import metrics
from ops.postgres.pool import pool

CONNECTIONS = metrics.gauge("postgres_pool_connections", "Connections of the pool.", "pool", "state")
WAITING = metrics.gauge("postgres_pool_waiting", "Requests that wait for a connection.", "pool")
MOST = metrics.gauge("postgres_pool_max", "Connections that the pool may have.", "pool")


def sample() -> None:
    idle = len(pool.idle)
    _set("native", idle, len(pool.borrowed) - idle, len(pool.waiting), settings.NATIVE_POOL.max_size)
    pools: dict[str, ConnectionPool] = getattr(DatabaseWrapper, "_connection_pools")  # noqa: B009  has no public name
    sync = pools.get("default")  # Django itself would open one for whoever asks
    if sync:
        stats = sync.get_stats()
        idle = stats["pool_available"]
        _set("sync", idle, stats["pool_size"] - idle, stats["requests_waiting"], sync.max_size)


def _set(name: str, idle: int, busy: int, waiting: int, most: int) -> None:
    CONNECTIONS.labels(name, "idle").value = idle
    CONNECTIONS.labels(name, "busy").value = busy
    WAITING.labels(name).value = waiting
    MOST.labels(name).value = most
