"""Rate limits: GCRA, the generic cell rate algorithm, counted in Redis for all workers.

It keeps one number per client, the theoretical arrival time (TAT): the time at which the client's quota is whole
again. Each request moves the TAT ahead by `seconds / quota`, and is refused if the TAT would be more than `seconds`
ahead of now. So a client may spend its quota at once, and gets it back evenly; no window begins anew for all clients
at the same moment. (ITU-T I.371; Brandur Leach, "Rate Limiting, Cells, and GCRA".)

    Redis                              | a request is counted
    -----------------------------------+-----------------------------------------------------------------------
    answers                            | there, by one script, atomically, with the clock of Redis
    refuses the client                 | there; the worker then refuses by itself until the quota has a request again
    is away, slow, or takes no scripts | by each worker for itself, from the last count of Redis that it knows: with
                                       | n workers, a client has n times the quota at most
"""

import logging
import math
import time
from dataclasses import dataclass
from hashlib import sha1
from typing import NamedTuple

from redis.exceptions import NoScriptError

from ops.redis.client import Client, Unavailable

logger = logging.getLogger(__name__)

MAX_CLIENTS = 8192  # most clients in each table of a Limiter; 0.2 kB each
MICROSECONDS = 1_000_000

# In: the key of the client's TAT; the time that a request costs, and the time of the whole quota, in microseconds.
# A TAT beyond the whole quota comes from an earlier, longer quota, or from a Redis with a clock that was ahead: it
# counts as a quota that is all spent.
# Out: whether the request is taken, and how far the TAT is ahead of now, in microseconds.
SCRIPT = b"""
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
if tat > now + ARGV[2] then
  tat = now + ARGV[2]
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil(ARGV[2] / 1000))
end
local after = tat + ARGV[1] - now
if after > tonumber(ARGV[2]) then
  return {0, tat - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', now + after), 'PX', math.ceil(after / 1000))
return {1, after}
"""
DIGEST = sha1(SCRIPT, usedforsecurity=False).hexdigest()  # Redis's name for the script


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`quota` requests in `seconds`: all at once, or evenly."""

    quota: int
    seconds: float

    @property
    def cost(self) -> float:
        """Seconds that a request takes of the quota's time."""
        return self.seconds / self.quota


class Verdict(NamedTuple):
    """Whether a request is taken, and the rest of the quota."""

    taken: bool
    remaining: int
    reset: int  # seconds until the quota is whole again; after a refusal, until it has a request


class Limiter:
    """Counts requests against limits. Belongs to one event loop."""

    def __init__(self, client: Client, prefix: str) -> None:
        """`prefix` begins the keys in Redis."""
        self._client, self._prefix = client, prefix
        self._refused: dict[str, float] = {}  # the end of the refusal, by client, on the monotonic clock
        self._local: dict[str, float] = {}  # the TAT, by client, on the same clock
        self._is_logged = False

    async def take(self, limit: RateLimit, client_id: str) -> Verdict:
        """Count a request of a client, which is named by a text of bounded length."""
        now = time.monotonic()
        if (until := self._refused.get(client_id, 0.0)) > now:
            return Verdict(taken=False, remaining=0, reset=math.ceil(until - now))
        try:
            taken, ahead = await self._ask(limit, client_id)
        except Unavailable:  # the same by the worker alone
            tat = max(self._local.get(client_id, 0.0), now)
            after = tat + limit.cost - now
            taken = after <= limit.seconds + 1e-9
            ahead = after if taken else tat - now
        if taken:
            _remember(self._local, client_id, now + ahead, now)
            # Rounded up by a little: the cost is not a whole number of the clock's ticks.
            remaining = int((limit.seconds - ahead) / limit.cost + 1e-3)
            return Verdict(taken=True, remaining=remaining, reset=math.ceil(ahead))
        wait = ahead + limit.cost - limit.seconds
        _remember(self._refused, client_id, now + wait, now)
        return Verdict(taken=False, remaining=0, reset=max(1, math.ceil(wait)))

    async def _ask(self, limit: RateLimit, client_id: str) -> tuple[bool, float]:
        """Whether Redis takes the request, and how far the TAT is ahead, in seconds. Raises Unavailable."""
        # Rounded down, or the last request of a quota would have no room.
        cost, whole = (int(seconds * MICROSECONDS) for seconds in (limit.cost, limit.seconds))
        arguments = (1, f"{self._prefix}:{client_id}", cost, whole)
        reply = await self._client.ask("EVALSHA", DIGEST, *arguments)
        if isinstance(reply, NoScriptError):  # Redis was restarted, without its scripts
            reply = await self._client.ask("EVAL", SCRIPT, *arguments)
        if isinstance(reply, Exception):
            if not self._is_logged:
                self._is_logged = True
                logger.warning("Each worker counts rate limits for itself: Redis: %s", reply)
            raise Unavailable(str(reply))
        taken, ahead = reply
        return bool(taken), ahead / MICROSECONDS


def _remember(times: dict[str, float], client_id: str, until: float, now: float) -> None:
    """Set a client's time. If there are too many, drop those that have passed, or else the oldest."""
    times.pop(client_id, None)
    times[client_id] = until
    if len(times) > MAX_CLIENTS:
        passed = [one for one, time in times.items() if time <= now]
        for one in passed or [next(iter(times))]:
            del times[one]
