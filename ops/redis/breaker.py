"""A circuit breaker: who does not answer is not asked again until it answers somebody who can wait."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

FAILURES, WINDOW = 5, 1.0  # so many failures within so many seconds open it
PAUSE = 1.0  # seconds between two probes. They run beside the requests: a short pause costs nobody anything


class Breaker:
    """Open while what it protects fails: callers then do without, at once.

    `probe` is asked in the background until it succeeds, so that no request pays for finding out.
    """

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        self.is_open = False
        self.failures = 0  # since the start
        self._name, self._probe = name, probe
        self._recent: deque[float] = deque(maxlen=FAILURES)
        self._probing: asyncio.Task[None] | None = None

    def failed(self, error: Exception) -> None:
        """Count a failure, and open if it was one too many."""
        loop = asyncio.get_running_loop()
        self.failures += 1
        self._recent.append(loop.time())
        if not self.is_open and len(self._recent) == FAILURES and loop.time() - self._recent[0] <= WINDOW:
            logger.warning(
                "%s is left alone until it answers: %s: %s", self._name, type(error).__name__, error
            )
            self.is_open = True
            self._probing = loop.create_task(self._recover())

    async def _recover(self) -> None:
        while self.is_open:
            await asyncio.sleep(PAUSE)
            try:
                await self._probe()
            except Exception as error:  # noqa: BLE001  whatever it is, the probe has failed
                logger.debug("%s: %s: %s", self._name, type(error).__name__, error)
            else:
                self._recent.clear()
                self.is_open = False
                logger.warning("%s answers again", self._name)

    async def close(self) -> None:
        """End the probing, and stay open: who comes late is not to ask again, either."""
        self.is_open = True
        if self._probing:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
