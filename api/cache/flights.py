"""Single flight: while one request finds an answer, the others that want the same wait for it."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from api.cache.entry import Entry
from api.cache.rendering import Answer
from api.cache.shared import Target
from ops.asgi.protocol import Scope


class Found(NamedTuple):
    """An entry, or an answer that is not stored; and how it came about."""

    entry: Entry | None
    answer: Answer | None
    outcome: str
    tier: str


class Abandoned(Exception):
    """The flight ended without a result: who waited for it finds the answer itself."""


class Flight:
    """`outdated` once something it depends on has changed: its result is then nobody's but of those who wait.

    `asked` is when Redis was last asked for it, on the monotonic clock: its result may lack what has changed since.
    """

    def __init__(self, target: Target, scope: Scope) -> None:
        self.target, self.scope = target, scope
        self.token = secrets.token_hex(8)  # whose lock in Redis it is
        self.outdated = False
        self.asked = time.monotonic()
        self._waiters: list[asyncio.Future[Found]] = []

    async def join(self) -> Found:
        """Wait for the result. Raises what the flight raised, or Abandoned."""
        waiter: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return await waiter

    async def fly(self, work: "Work") -> Found:
        """Do the work and give its result to those who wait."""
        try:
            found = await work(self)
        except Exception as error:
            self._fail(error)
            raise
        except BaseException:  # cancelled; the others are not
            self._fail(Abandoned())
            raise
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(found)
        return found

    def _fail(self, error: Exception) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)


Work = Callable[[Flight], Awaitable[Found]]


class Flights:
    """The flights of a worker by the key of what they look for; at most one for each."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._flights

    def get(self, key: str) -> Flight | None:
        return self._flights.get(key)

    async def lead(self, flight: Flight, work: Work) -> Found:
        """See a flight through that has begun."""
        key = flight.target.key
        try:
            return await flight.fly(work)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def begin(self, target: Target, scope: Scope) -> Flight:
        """A flight that others can join from now on; it has to be led."""
        flight = self._flights[target.key] = Flight(target, scope)
        return flight

    def forget(self, tags: Iterable[str] | None = None) -> list[Flight]:
        """Let nobody join the flights that depend on any of `tags`, or any flight at all; they are returned."""
        changed = None if tags is None else frozenset(tags)
        outdated = [
            flight
            for flight in self._flights.values()
            if changed is None or not changed.isdisjoint(flight.target.tags)
        ]
        for flight in outdated:
            flight.outdated = True
            del self._flights[flight.target.key]
        return outdated
