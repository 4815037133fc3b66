"""How what the service depends on is, for people and monitors: no load balancer should ask."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

from django.conf import settings
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ops.postgres.pool import pool
from ops.postgres.statement import Statement

PATIENCE = 1.0  # seconds for each dependency; asked side by side
FRESH = 1.0  # seconds that an answer serves everybody who asks

Check = Callable[[], Awaitable[object]]


class Health:
    """The dependencies by name. Each is asked once at a time and once a second, however many want to know."""

    def __init__(self, **checks: Check) -> None:
        self._checks = checks
        self._asking: asyncio.Task[dict[str, Any]] | None = None
        self._fresh_until = 0.0

    async def report(self) -> dict[str, Any]:
        """`{"status": "ok", "postgres": {"status": "ok", "milliseconds": 0.4}, ...}`, `failed` where one is."""
        if self._asking is None or (self._asking.done() and perf_counter() > self._fresh_until):
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> dict[str, Any]:
        states = await asyncio.gather(*(_state(check) for check in self._checks.values()))
        self._fresh_until = perf_counter() + FRESH
        ok = all(state["status"] == "ok" for state in states)
        return {"status": "ok" if ok else "failed"} | dict(zip(self._checks, states, strict=True))


async def _state(check: Check) -> dict[str, Any]:
    """An error's type says enough to anybody who may ask; its text, which may name hosts, is not for them."""
    began = perf_counter()
    try:
        async with asyncio.timeout(PATIENCE):
            await check()
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        state = {"status": "failed", "error": type(error).__name__}
    else:
        state = {"status": "ok"}
    return {**state, "milliseconds": round((perf_counter() - began) * 1e3, 3)}


ASK = Statement("SELECT 1", ())


async def ask_postgres() -> None:
    """Through the pool, as requests do."""
    await pool.fetch(ASK, [])


async def ask_redis() -> None:
    """Over a connection of its own: whether the service's are well is told by its metrics."""
    limits: dict[str, Any] = {"socket_connect_timeout": PATIENCE, "socket_timeout": PATIENCE}
    async with Redis.from_url(settings.REDIS_URL, retry=Retry(NoBackoff(), 0), **limits) as client:
        await client.ping()


health = Health(postgres=ask_postgres, redis=ask_redis)
