"""How late the event loop comes to what is due: what every request waits before anything of it is timed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from ops.instruments.metrics import metrics

EVERY = 0.1  # seconds. uvloop's timers are exact to a millisecond, and so is what is measured
LAG = metrics.histogram("event_loop_lag_seconds", "Lateness of a timer of the event loop.").labels()


@asynccontextmanager
async def watched_loop() -> AsyncIterator[None]:
    task = asyncio.create_task(_watch())
    try:
        yield
    finally:
        task.cancel()


async def _watch() -> None:
    while True:
        due = perf_counter() + EVERY
        await asyncio.sleep(EVERY)
        LAG.observe(max(0.0, perf_counter() - due))
