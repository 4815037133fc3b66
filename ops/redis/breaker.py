"""A circuit breaker: who does not answer is not asked again until it answers somebody who can wait."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from ops.asgi.tasks import end

logger = logging.getLogger(__name__)

FAILURES = 3  # in a row open it, however far apart: a request that comes once a second must not pay each time
PROBES = 3  # in a row close it: who has changes to tell then does so before anybody relies on what he reads
PAUSE = 0.25  # seconds between two probes. They run beside the requests: a short pause costs nobody anything


class Breaker:
    """Open while what it protects fails: callers then do without, at once.

    `probe` is asked in the background until it succeeds, so that no request pays for finding out.
    """

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        self.is_open = False
        self.failures: Counter[str] = Counter()  # by kind, since the start
        self._name, self._probe = name, probe
        self._in_a_row = 0
        self._probing: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        self._in_a_row = 0

    def failed(self, error: Exception) -> None:
        """Count a failure, and open if it was one too many."""
        self.failures[_kind(error)] += 1
        self._in_a_row += 1
        if self._in_a_row >= FAILURES:
            self.open(error)

    def open(self, error: Exception) -> None:
        if self.is_open:
            return
        logger.warning("%s is left alone until it answers: %s: %s", self._name, type(error).__name__, error)
        self.is_open = True
        self._probing = asyncio.get_running_loop().create_task(self._recover())

    async def close(self) -> None:
        """End the probing, and stay open: who comes late is not to ask again, either."""
        self.is_open = True
        if self._probing:
            await end(self._probing)

    async def _recover(self) -> None:
        answered = 0
        while answered < PROBES:
            await asyncio.sleep(PAUSE)
            try:
                await self._probe()
            except Exception as error:  # noqa: BLE001  whatever it is, the probe has failed
                logger.debug("%s: %s: %s", self._name, type(error).__name__, error)
                answered = 0
            else:
                answered += 1
        self._in_a_row = 0
        self.is_open = False
        logger.warning("%s answers again", self._name)


def _kind(error: Exception) -> str:
    """What went wrong, for a metric. redis-py has its own TimeoutError and ConnectionError."""
    name = type(error).__name__
    return "timeout" if "Timeout" in name else "connection" if "Connection" in name else "refused"
