"""Whether Redis answers, and takes the page cache's commands: a check of /healthz."""

from typing import Any

from django.conf import settings

from ops.redis.client import connect
from ops.redis.rights import find_lacking

CONNECT_SECONDS = 1.0


async def ask_redis() -> dict[str, Any]:
    """Ask on a new connection: the metrics tell whether the service's own are well. Raises redis.RedisError."""
    async with connect(CONNECT_SECONDS) as redis:
        if settings.PAGE_CACHE == "off":
            await redis.ping()
            return {}
        lacking = await find_lacking(redis)
    return {"status": "degraded", "refuses": lacking} if lacking else {}
