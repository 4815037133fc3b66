"""Writes a worker's metrics to its files, once a second and when it stops.

Nothing of prometheus_client runs in a request, and no request waits for a file: a scrape is at most a second behind.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ops.instruments.metrics import metrics
from ops.instruments.store import Store

logger = logging.getLogger(__name__)

EVERY = 1.0  # seconds between flushes; one takes 0.1 ms where 20 series have changed
# Where the files are, which prometheus_client names so too, and whose: set by ops/instruments/arbiter.py.
DIRECTORY, SLOT = "PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_SLOT"


@asynccontextmanager
async def recorded_metrics() -> AsyncIterator[None]:
    """For the lifespan of a worker: its first resource, so that the last flush tells the end of the others."""
    if SLOT not in os.environ:
        yield
        return
    store = Store(Path(os.environ[DIRECTORY]), os.environ[SLOT])
    task = asyncio.create_task(_record(store))
    try:
        yield
    finally:
        task.cancel()
        flush(store)
        store.close()


async def _record(store: Store) -> None:
    while flush(store):  # noqa: ASYNC110  it is time that passes here
        await asyncio.sleep(EVERY)


def flush(store: Store) -> bool:
    """Whether it could be written. A worker whose directory is full or gone serves on without metrics."""
    try:
        for sampler in metrics.samplers:
            sampler()
        store.write(metrics.metrics)
    except Exception:
        logger.exception("This worker's metrics end here")
        return False
    return True
