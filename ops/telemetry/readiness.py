"""Whether this worker takes requests: start-up and draining, and nothing else.

A load balancer asks for it. The worker's dependencies are no part of the answer: a database that is down would take
all workers out of service at once, and that would mend nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

# Seconds in which a worker's slow requests are not logged: it shares the processors with others that still start.
WARM_UP_SECONDS = 5.0


class Readiness:
    def __init__(self) -> None:
        self.started = self.draining = False
        self.warm_at = 0.0  # when the warm-up ends, on the monotonic clock

    @property
    def state(self) -> str:
        return "draining" if self.draining else "ready" if self.started else "starting"


readiness = Readiness()


@asynccontextmanager
async def announce_readiness() -> AsyncIterator[None]:
    """Announce a worker as ready for its lifespan. The last resource, so that a ready worker has all others."""
    readiness.started, readiness.warm_at = True, monotonic() + WARM_UP_SECONDS
    try:
        yield
    finally:
        readiness.started, readiness.warm_at = False, 0.0
