"""A circuit breaker: a dependency that fails is not asked by requests until it answers probes in the background."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import Context

from ops.tasks import end

logger = logging.getLogger(__name__)

# Failures in a row that open the breaker, however far apart: else a request each second would always pay.
MAX_FAILURES = 3


class Breaker:
    """Open while a dependency fails.

    state  | calls                  | next state
    -------+------------------------+-----------------------------------------------------------
    closed | go to the dependency   | open, after MAX_FAILURES in a row, or at once by `open`
    open   | are refused at once    | closed, after `probe` has succeeded `min_probes` times in a row
    """

    def __init__(
        self, name: str, probe: Callable[[], Awaitable[None]], *, probe_seconds: float, min_probes: int
    ) -> None:
        """`probe` raises if the dependency still fails. It runs every `probe_seconds`, while the breaker is open."""
        self.is_open = False
        self.failures: Counter[str] = Counter()  # by kind, since the start
        self._name, self._probe = name, probe
        self._probe_seconds, self._min_probes = probe_seconds, min_probes
        self._in_a_row = 0
        self._probing: asyncio.Task[None] | None = None

    def succeeded(self) -> None:
        self._in_a_row = 0

    def failed(self, error: Exception) -> None:
        """Count a failure, and open after MAX_FAILURES in a row."""
        name = type(error).__name__  # redis-py has its own TimeoutError and ConnectionError
        kind = "timeout" if "Timeout" in name else "connection" if "Connection" in name else "refused"
        self.failures[kind] += 1
        self._in_a_row += 1
        if self._in_a_row >= MAX_FAILURES:
            self.open(error)

    def open(self, error: Exception) -> None:
        if self.is_open:
            return
        logger.warning("%s is left alone until it answers: %s: %s", self._name, type(error).__name__, error)
        self.is_open = True
        # In a context of its own: the probing is no part of the request that has failed, and outlives it.
        self._probing = asyncio.get_running_loop().create_task(self._recover(), context=Context())

    async def close(self) -> None:
        """End the probing. The breaker stays open, so calls that come late are refused."""
        self.is_open = True
        if self._probing:
            await end(self._probing)

    async def _recover(self) -> None:
        answered = 0
        while answered < self._min_probes:
            await asyncio.sleep(self._probe_seconds)
            try:
                await self._probe()
            except Exception as error:  # noqa: BLE001  on any error, the probe has failed
                logger.debug("%s: %s: %s", self._name, type(error).__name__, error)
                answered = 0
            else:
                answered += 1
        self._in_a_row = 0
        self.is_open = False
        logger.warning("%s answers again", self._name)
