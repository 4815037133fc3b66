"""The page cache's commands that Redis refuses: its user lacks the right (ACL), or the server is too old.

The cache does without them as well as it can. A worker logs them once, /healthz names them, and so does
`manage.py check` (ops.W052).
"""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

# The effect of each command that is refused.
UNSHARED = "answers are not shared between workers, each computes its own"
SLOW = "a worker notices changes of others after up to 0.7 s"
CONSEQUENCES = {
    "MGET": UNSHARED,
    "SET": UNSHARED,
    "EXPIRE": "answers are computed more often than necessary",
    "DEL": UNSHARED,
    "PUBLISH": SLOW,
    "SUBSCRIBE": SLOW,
    "INFO": "after a failover of Redis, answers may be out of date until they expire",
}


def describe(lacking: Sequence[str]) -> str:
    """Return the refused commands and the effects of that, as a sentence."""
    effects = dict.fromkeys(CONSEQUENCES[name] for name in lacking)
    return f"Redis refuses {', '.join(lacking)} to the page cache: {'; '.join(effects)}."


async def find_lacking(redis: "Redis") -> list[str]:
    """Return the refused commands. The caller sets a deadline. Raises RedisError or OSError if Redis is unwell."""
    # The name of a key and of a channel. No worker listens to this channel, or waits for confirmations on it.
    key = f"{settings.CACHE_PREFIX}:probe"
    commands: dict[str, Sequence[Any]] = {
        "SET": ("SET", key, 1, "PX", 1000),
        "MGET": ("MGET", key),
        "EXPIRE": ("EXPIRE", key, 1),
        "DEL": ("DEL", key),
        "PUBLISH": ("PUBLISH", key, "test"),
        "INFO": ("INFO", "server"),
    }
    pipeline = redis.pipeline(transaction=False)
    for command in commands.values():
        pipeline.execute_command(*command)
    replies = await pipeline.execute(raise_on_error=False)
    refused = {name for name, reply in zip(commands, replies, strict=True) if _is_refusal(reply)}
    async with redis.pubsub() as subscribed:
        try:
            await subscribed.subscribe(key)
            await subscribed.get_message(timeout=None)
        except ResponseError as error:
            if not _is_refusal(error):
                raise
            refused.add("SUBSCRIBE")
    return [name for name in CONSEQUENCES if name in refused]


def _is_refusal(reply: object) -> bool:
    """Whether a reply is a refusal, not an error that passes, such as that of a full or read-only server."""
    return isinstance(reply, NoPermissionError) or (
        isinstance(reply, ResponseError) and "unknown command" in str(reply).lower()
    )
