"""Single flight: the requests of a worker for one entry share one computation.

state    | begins                       | requests for the same key
---------+------------------------------+------------------------------------------------------------
open     | `begin`                      | join it and get its result, its error, or Abandoned
replaced | `begin` of a younger one     | join the younger one
outdated | `invalidate`                 | begin another; those that wait get the result, which is not kept
ended    | its work has ended           | begin another
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from api.cache.entry import Entry
from api.cache.policy import Target
from api.cache.rendering import Answer


class Found(NamedTuple):
    """The result of a flight: an entry, or an answer that is not stored, and how it came about."""

    entry: Entry | None
    answer: Answer | None
    outcome: str
    tier: str
    is_shared: bool = False  # whether the entry goes to Redis, for all workers


class Abandoned(Exception):
    """The flight ended without a result; its waiters look the entry up themselves."""


class Flight:
    """One lookup or computation under way.

    `asked`: when Redis was last asked for the entry, on the monotonic clock. Changes after that may be missing from
    the result.
    `outdated`: a dependency has changed, or may have, while this ran. Current waiters get the result; it is not kept.
    `without_redis`: this revalidation computes the entry, since Redis is away, and requests wait for its result, too.
    `lock`: the token of the lock that the flight holds in Redis; empty if it holds none.
    `locked_until`: when that lock expires, on the monotonic clock.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.asked = time.monotonic()
        self.outdated = self.without_redis = False
        self.lock, self.locked_until = "", 0.0
        self.result: asyncio.Future[Found] = asyncio.get_running_loop().create_future()

    def end_lock(self) -> str:
        """Return the token of the lock that the flight held, which the caller has to delete now; empty without one.

        An expired lock counts as none, since another worker may have it. So the caller can delete the lock without
        comparing tokens, which would take a script.
        """
        held, self.lock = self.lock, ""
        return held if time.monotonic() < self.locked_until else ""


Work = Callable[[Flight], Awaitable[Found]]


class Flights:
    """The flights of a worker that are under way. A request joins the youngest one for its key."""

    def __init__(self) -> None:
        self._open: dict[str, Flight] = {}
        self._replaced: set[Flight] = set()  # by a younger one: no request joins them any more

    def get(self, key: str) -> Flight | None:
        return self._open.get(key)

    def begin(self, target: Target) -> Flight:
        """Return a new flight, which others can join from now on; the caller has to `lead` it."""
        if replaced := self._open.get(target.key):
            self._replaced.add(replaced)
        flight = self._open[target.key] = Flight(target)
        return flight

    async def join(self, flight: Flight) -> Found:
        """Wait for a flight and return its result. Raises the error of its work, or Abandoned."""
        # Without the shield, a cancellation of one waiter would cancel the flight for all.
        return await asyncio.shield(flight.result)

    async def lead(self, flight: Flight, work: Work) -> Found:
        """Do the work of a flight that has begun, and pass its result or error on to the waiters."""
        try:
            found = await work(flight)
        except BaseException as error:
            # A cancellation concerns only the leader: the waiters get Abandoned.
            flight.result.set_exception(error if isinstance(error, Exception) else Abandoned())
            flight.result.exception()  # without waiters, the loop would report it as never retrieved
            raise
        finally:
            self._discard(flight)
        flight.result.set_result(found)
        return found

    def invalidate(self, tags: Iterable[str] | None = None) -> list[Flight]:
        """Close the flights that depend on any of `tags` to new requests, and return them. None means all tags."""
        changed = None if tags is None else frozenset(tags)
        outdated = [
            flight
            for flight in (*self._open.values(), *self._replaced)
            if flight.target.tags and (changed is None or not changed.isdisjoint(flight.target.tags))
        ]
        for flight in outdated:
            flight.outdated = True
            self._discard(flight)
        return outdated

    def _discard(self, flight: Flight) -> None:
        self._replaced.discard(flight)
        if self._open.get(flight.target.key) is flight:
            del self._open[flight.target.key]
