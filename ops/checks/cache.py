"""Checks of the shared cache."""

import asyncio
from typing import Any

from django.conf import settings
from django.core.cache.backends.redis import RedisCache
from django.utils.module_loading import import_string
from django_redis.cache import RedisCache as DjangoRedisCache  # type: ignore[import-untyped]
from redis.exceptions import RedisError
from redis.utils import HIREDIS_AVAILABLE

from ops.checks.messages import Messages, warning
from ops.redis.client import BACKGROUND_TIMEOUT_SECONDS, connect
from ops.redis.rights import describe, find_lacking


def check_cache(**_kwargs: Any) -> Messages:
    """Check that every cache is Redis, which all workers share."""
    return [
        warning(
            "050",
            f"CACHES[{alias!r}] has the backend {cache['BACKEND']!r}, which is not Redis.",
            "Use django_redis.cache.RedisCache: a cache in memory is filled once a worker and never agrees with "
            "the others, and one in files or the database saves little.",
        )
        for alias, cache in settings.CACHES.items()
        if not issubclass(import_string(str(cache["BACKEND"])), (DjangoRedisCache, RedisCache))
    ]


def check_redis_rights(**_kwargs: Any) -> Messages:
    """Check that Redis takes the page cache's commands. If Redis is down, /healthz tells."""
    if settings.PAGE_CACHE == "off":
        return []

    async def ask() -> list[str]:
        async with asyncio.timeout(BACKGROUND_TIMEOUT_SECONDS), connect(BACKGROUND_TIMEOUT_SECONDS) as redis:
            return await find_lacking(redis)

    try:
        lacking = asyncio.run(ask())
    except (RedisError, OSError):
        return []
    if not lacking:
        return []
    return [
        warning(
            "052",
            describe(lacking),
            f"Give REDIS_URL's user these commands, on the keys and channels {settings.CACHE_PREFIX}:*, or take "
            "a newer Redis.",
        )
    ]


def check_hiredis(**_kwargs: Any) -> Messages:
    """Check that redis-py can import hiredis, with which it parses answers in C."""
    if HIREDIS_AVAILABLE:
        return []
    return [
        warning(
            "051",
            "hiredis cannot be imported: redis-py parses every answer in Python.",
            "Install hiredis; redis-py uses it by itself.",
        )
    ]
