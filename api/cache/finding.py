"""Finds the answer to a request in the tiers, or has it computed: once, by one of all the workers.

    worker's memory  ->  Redis  ->  the application
    (no waiting)         (one round trip)     (under a lock; the others wait for its result)

A fresh entry is answered at once. A stale one is answered, too, while the next is computed in the background; and so
is one that will be stale soon, now and then, the earlier the longer it takes to compute (XFetch: Vattani et al.,
VLDB 2015, doi 10.14778/2757807.2757813).
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import Context
from typing import Any, TypeGuard

from api.cache.entry import Entry
from api.cache.flights import Abandoned, Flight, Flights, Found, Work
from api.cache.memory import Memory
from api.cache.rendering import Answer
from api.cache.shared import Reservation, Shared, Target
from ops.asgi.protocol import Scope
from ops.asgi.tasks import end
from ops.redis.client import Unavailable

logger = logging.getLogger(__name__)

# Seconds from asking Redis whether an entry is valid, or from computing it, during which a worker answers with it
# without asking again: the most that a change goes unnoticed whose message does not arrive. In their second half the
# next request has Redis asked in the background, so that nobody waits for that while a page is in demand.
LIFE = 0.7
PATIENCE = 1.0  # seconds to wait for the worker who computes the same
STEPS = 0.002, 0.025  # seconds between two looks whether it is done: at first, and at most
QUIET = 1.0  # seconds from a refresh that failed to the next
FAREWELL = 0.2  # seconds that a worker which stops takes to give back its locks
# -log(random) exceeds it once in 5e8 times: an entry is not refreshed earlier than so many times its cost.
UNLIKELY = 20.0

ALONE = Reservation(granted=True, versions=None, entry=None)  # without Redis, every worker for itself

HIT, STALE, MISS, COLLAPSED = "hit", "stale", "miss", "collapsed"
L1, L2, NONE = "l1", "l2", "none"


class Finder:
    def __init__(
        self, render: Callable[[Scope], Awaitable[Answer]], memory: Memory | None, shared: Shared
    ) -> None:
        """Without `memory`, Redis is asked each time."""
        self.memory, self.shared = memory, shared
        self._render = render
        self._flights = Flights()
        self._background = Flights()  # nobody waits for them
        self._tasks: set[asyncio.Task[Any]] = set()

    def recall(self, target: Target, scope: Scope) -> tuple[Entry, str] | None:
        """The entry in the worker's memory and its outcome, if there is one to be used without waiting."""
        entry = self._held(target)
        now = time.monotonic()
        if entry is None or now >= entry.live_until:
            return None
        if now >= entry.calm_until:
            self._attend(entry, target, scope, now)
        return entry, HIT if now < entry.fresh_until else STALE

    async def find(self, target: Target, scope: Scope) -> Found:
        """The answer, wherever it is. Raises Unstorable, or what the application raised."""
        while (flight := self._flights.get(target.key)) and time.monotonic() < flight.asked + LIFE:
            try:
                found = await flight.join()
            except Abandoned:
                continue
            return found._replace(outcome=COLLAPSED) if found.outcome == MISS else found
        return await self._flights.lead(self._flights.begin(target, scope), self._settle)

    def forget(self, tags: Iterable[str]) -> None:
        """What depends on the tags has changed."""
        for flight in (*self._flights.forget(tags), *self._background.forget(tags)):
            # Who asks from now on, wherever, need not wait for it.
            self._spawn(self.shared.release(flight.target.key, flight.token))
        if self.memory is not None:
            self.memory.forget(tags)

    def doubt(self) -> None:
        """Anything may have changed: what the worker holds is for Redis to confirm, or better than nothing."""
        self._flights.forget()
        self._background.forget()
        if self.memory is not None:
            self.memory.doubt()

    def clear(self) -> None:
        if self.memory is not None:
            self.memory.clear()

    async def close(self) -> None:
        await end(*self._tasks)
        if self._tasks:  # who is cancelled gives its lock back, in a task of its own
            await asyncio.wait(self._tasks, timeout=FAREWELL)

    # --- Work of a flight -------------------------------------------------------------------------

    async def _settle(self, flight: Flight) -> Found:
        """Look in Redis, then compute."""
        held = self._held(flight.target)
        try:
            entry = await self._look(flight, held)
        except Unavailable:
            return await self._run(flight, ALONE, last_resort=held)
        if entry is None:
            return await self._compute(flight)
        now = time.monotonic()
        self._keep(entry, flight)
        if _is_due(entry, now):
            self._later(flight.target, flight.scope, self._refresh(entry))
        return Found(entry, None, HIT if now < entry.fresh_until else STALE, L2)

    async def _renew(self, flight: Flight) -> Found:
        """Ask Redis whether what the worker holds is still valid."""
        entry = await self._look(flight, self._held(flight.target))
        if entry is None:
            self._drop(flight)
            raise Abandoned
        self._keep(entry, flight)
        return Found(entry, None, HIT if time.monotonic() < entry.fresh_until else STALE, L2)

    def _refresh(self, old: Entry) -> Work:
        """Compute what comes after `old`, unless another worker does, or has."""

        async def refresh(flight: Flight) -> Found:
            reservation = await self._reserve(flight)
            if (newer := reservation.entry) and newer.created > old.created:
                self._give_back(flight, reservation)
                self._keep(newer, flight)
                return Found(newer, None, HIT, L2)
            if not reservation.granted:
                raise Abandoned
            return await self._run(flight, reservation, last_resort=old)

        return refresh

    async def _compute(self, flight: Flight) -> Found:
        """A new entry, or the one that another worker has computed meanwhile."""
        give_up, step = time.monotonic() + PATIENCE, STEPS[0]
        while True:
            reservation = await self._reserve(flight)
            if reservation.entry and time.monotonic() < reservation.entry.fresh_until:
                self._give_back(flight, reservation)
                self._keep(reservation.entry, flight)
                return Found(reservation.entry, None, COLLAPSED, L2)
            if reservation.granted or time.monotonic() > give_up:
                return await self._run(flight, reservation)
            await asyncio.sleep(step)
            step = min(2 * step, STEPS[1])

    async def _run(self, flight: Flight, reservation: Reservation, last_resort: Entry | None = None) -> Found:
        """Let the application answer. If it fails, the `last_resort` stays in use while that is allowed."""
        created, began = time.time(), time.perf_counter()
        try:
            answer = await self._render(flight.scope)
        except BaseException as error:
            self._give_back(flight, reservation)
            if isinstance(error, Exception) and _is_usable(last_resort):
                return self._resort(last_resort, flight)
            raise
        if answer.is_storable:
            entry = Entry(
                flight.target.policy,
                flight.target.key,
                answer.kept(),
                answer.body,
                created=created,
                cost=time.perf_counter() - began,
                versions=reservation.versions,
            )
            self._keep(entry, flight)
            if entry.versions is None or flight.outdated:
                self._give_back(flight, reservation)
            else:
                self._spawn(self.shared.store(entry, flight.token))
            return Found(entry, None, MISS, NONE)
        failed = answer.status >= 500  # noqa: PLR2004
        self._give_back(flight, reservation, drop=not failed)
        if failed and _is_usable(last_resort):
            return self._resort(last_resort, flight)
        self._drop(flight)
        return Found(None, answer, MISS, NONE)

    # --- Steps ------------------------------------------------------------------------------------

    def _held(self, target: Target) -> Entry | None:
        return None if self.memory is None else self.memory.get(target.key)

    async def _look(self, flight: Flight, held: Entry | None) -> Entry | None:
        """The entry that is valid by Redis: its own, or `held`, which has what it has cost to make ready."""
        flight.asked = time.monotonic()
        entry, versions = await self.shared.look(flight.target)
        if held and versions is not None and held.versions == versions:
            entry = entry if entry and entry.created > held.created else held
        return entry if _is_usable(entry) else None

    async def _reserve(self, flight: Flight) -> Reservation:
        flight.asked = time.monotonic()
        try:
            return await self.shared.reserve(flight.target, flight.token)
        except Unavailable:
            return ALONE
        except asyncio.CancelledError:
            self._spawn(self.shared.release(flight.target.key, flight.token))  # Redis may have granted it
            raise

    def _give_back(self, flight: Flight, reservation: Reservation, *, drop: bool = False) -> None:
        if reservation.granted and reservation is not ALONE:
            self._spawn(self.shared.release(flight.target.key, flight.token, drop=drop))

    def _keep(self, entry: Entry, flight: Flight) -> None:
        if self.memory is None or flight.outdated:
            return
        entry.live_until = min(flight.asked + LIFE, entry.stale_until)
        entry.calm_until = min(flight.asked + LIFE / 2, entry.fresh_until - UNLIKELY * entry.cost)
        if self.memory.get(entry.key) is not entry:
            self.memory.put(entry, flight.target.tags)

    def _drop(self, flight: Flight) -> None:
        if self.memory is not None:
            self.memory.drop(flight.target.key)

    def _resort(self, entry: Entry, flight: Flight) -> Found:
        flight.asked = time.monotonic()  # there is nothing better to be had
        entry.quiet_until = flight.asked + QUIET
        self._keep(entry, flight)
        return Found(entry, None, STALE, L1)

    def _attend(self, entry: Entry, target: Target, scope: Scope, now: float) -> None:
        """See to it that the entry's successor, or the proof that it is still valid, is there in time."""
        if _is_due(entry, now):
            self._later(target, scope, self._refresh(entry))
        elif now >= entry.live_until - LIFE / 2:
            self._later(target, scope, self._renew)

    def _later(self, target: Target, scope: Scope, work: Work) -> None:
        if target.key not in self._background:
            self._spawn(self._background.lead(self._background.begin(target, scope), work))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside the requests."""
        task = asyncio.get_running_loop().create_task(work, context=Context())  # no part of the request
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, Abandoned | Unavailable):
            logger.error("The page cache failed in the background", exc_info=error)


def _is_usable(entry: Entry | None) -> TypeGuard[Entry]:
    """Whether it is fresh, or stale and better than nothing."""
    return entry is not None and time.monotonic() < entry.stale_until


def _is_due(entry: Entry, now: float) -> bool:
    """Whether to compute its successor: certainly once it is stale, by chance shortly before."""
    if now < entry.quiet_until:
        return False
    return now - entry.cost * math.log(1.0 - random.random()) >= entry.fresh_until  # noqa: S311
