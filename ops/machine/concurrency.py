"""The number of workers without WEB_CONCURRENCY."""

import logging
import os

from ops.machine import cpus, memory

logger = logging.getLogger(__name__)

# Bytes. After requests a worker has 29 MB of its own; its page cache holds 32 MB in up to twice as much memory; the
# rest is for requests under way.
WORKER = 120 * 1024 * 1024
# Postgres has 100 connections by default and leaves the service 87 (ops.W060): 8 workers x (3 + 3 + 1 + 1 + 2) fit.
# Yours can only be asked later: at the start the server may be down.
MOST = 8


def formula() -> int:
    """Return 2 x cores + 1, as is usual. An event loop waits less than a thread, so fewer can have a better p99."""
    return int(2 * cpus.available()) + 1


def workers() -> int:
    """Return the numbers by cores, by memory and by Postgres's default."""
    return max(1, min(formula(), memory.available() // WORKER, MOST))


def report(chosen: int) -> None:
    """Log why there are `chosen` workers, if that is fewer than by cores, and not configured."""
    if os.environ.get("WEB_CONCURRENCY") or chosen != workers() or chosen == formula():
        return
    logger.warning(
        "%d workers, not the %d of %g cores: %d MB of memory hold %d, and more than %d may exceed the 100 "
        "connections that Postgres has by default. WEB_CONCURRENCY sets another number",
        *(chosen, formula(), cpus.available(), memory.available() // 1024**2),
        *(memory.available() // WORKER, MOST),
    )
