"""The state of the service's dependencies, for people and monitors: no load balancer should ask."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

ANSWER_SECONDS = 1.0  # seconds for each dependency; all are asked at the same time
FRESH_SECONDS = 1.0  # seconds that a report serves further requests

# Asks a dependency. Returns further fields of its report, maybe with a `status` other than ok; raises if it is down.
Check = Callable[[], Awaitable[dict[str, Any]]]


class Health:
    """The dependencies by name. Each is asked once at a time and once a second at most, for all requests together."""

    def __init__(self, facts: Mapping[str, str], **checks: Check) -> None:
        """`facts` are further fields of each report. config/asgi.py names the checks of the service."""
        self._facts, self._checks = facts, checks
        self._asking: asyncio.Task[dict[str, Any]] | None = None
        self._fresh_until = 0.0

    async def report(self) -> dict[str, Any]:
        """Return a report: `{"status": "ok", "runtime": "lean", "postgres": {"status": "ok", ...}, ...}`.

        The first status is `failed` if that of a dependency is. A dependency that is `degraded` does its work, but
        not as well as it could.
        """
        if self._asking is None or (self._asking.done() and perf_counter() > self._fresh_until):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, Any]:
        async def state(check: Check) -> dict[str, Any]:
            began = perf_counter()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    found = {"status": "ok", **await check()}
            except Exception as error:  # noqa: BLE001  any error is the answer, without its text, which may name hosts
                found = {"status": "failed", "error": type(error).__name__}
            return {**found, "milliseconds": round((perf_counter() - began) * 1e3, 3)}

        states = await asyncio.gather(*map(state, self._checks.values()))
        self._fresh_until = perf_counter() + FRESH_SECONDS
        status = "failed" if any(each["status"] == "failed" for each in states) else "ok"
        return {"status": status, **self._facts, **dict(zip(self._checks, states, strict=True))}
