"""Metrics of the requests for a connection, for the native pool and the sync pool."""

from ops.telemetry import request_stats
from ops.telemetry.metrics import metrics

CHECKOUTS = metrics.counter(
    "postgres_pool_checkouts_total", "Requests for a connection of the pool.", "pool", "outcome"
)
SHED = request_stats.SHED.labels("pool")
WAITS = metrics.histogram(
    "postgres_pool_wait_seconds", "Until the pool had a connection or none to give.", "pool"
)
PIPES = metrics.histogram(
    "postgres_pipeline_wait_seconds",
    "Behind the statements of earlier requests on the same connection.",
    "pool",
)


class RecentWaits:
    """The average wait, in seconds, of the quick statements that had to wait for a busy connection; 0 if none had."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, seconds: float) -> None:
        self._sum += seconds
        self._count += 1

    def take(self) -> float:
        """Return the average since the last call."""
        mean = self._sum / self._count if self._count else 0.0
        self._sum, self._count = 0.0, 0
        return mean


recent_waits = RecentWaits()
