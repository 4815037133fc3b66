"""Whether this worker takes requests: start-up and draining, and nothing else.

A load balancer asks. What the worker depends on is no part of the answer: a database that is down would take all
workers out of service at once, and mend nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Readiness:
    def __init__(self) -> None:
        self.started = self.draining = False

    @property
    def state(self) -> str:
        return "draining" if self.draining else "ready" if self.started else "starting"


readiness = Readiness()


@asynccontextmanager
async def readiness_told() -> AsyncIterator[None]:
    """For the lifespan of a worker: its last resource, so that all others are there once it is ready."""
    readiness.started = True
    try:
        yield
    finally:
        readiness.started = False
