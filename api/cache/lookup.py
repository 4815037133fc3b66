"""Looks up an entry in the tiers, or has it computed.

    worker's memory  ->  Redis  ->  the application
    (no waiting)         (one round trip)

The result by outcome and tier, as `PageCache` counts it:

    outcome   | tier      | the answer
    ----------+-----------+----------------------------------------------------------------------------------
    hit       | wire, l1  | fresh, from the worker's memory
    hit       | l2        | fresh, confirmed by Redis for this request
    stale     | l1, l2    | stale; the next one is computed in the background, or its computation has just failed
    miss      | none      | computed for this request
    collapsed | none      | computed for another request of this worker (single flight)
    collapsed | l2        | computed by another worker meanwhile
    pending   | none      | 503: it is being computed, for longer than a request waits

Stampedes: within a worker, requests for one key share one look-up or computation (a flight, flights.py). If it asked
Redis over TRUST_SECONDS + GRACE_SECONDS ago, a request begins another, unless the answer goes by its age.
Several workers may compute a cheap entry at the same time. An expensive one (`cost` of its policy) is computed by one
worker at a time, under a lock; the others wait for the entry, `cost` seconds at most. Expiry has no jitter:
stale-while-revalidate hides it from requests.

A lock may remain without a holder, and other workers then wait in vain:

    why the lock remained                    | how it ends
    -----------------------------------------+-----------------------------------------------------------------------
    its holder was killed                    | it expires: `Durations.lock_seconds` (locks.py), `cost` at most
    Redis's reply came too late, or never    | a task in the background deletes it if it has this worker's token
    Redis did not take its release           | the same, as soon as Redis takes commands

An answer that goes by its age alone, such as statistics, takes seconds, and no change of rows makes it invalid. So
the entry in memory is sent without a confirmation by Redis: while it is fresh, and after that until `stale_until`,
during which the next one is computed. If memory has none, a background task looks in Redis or computes it, and
continues even if the request gives up after PATIENCE_SECONDS.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import Context
from functools import partial
from http import HTTPStatus
from typing import Any, TypeGuard

from api.cache.entry import Entry
from api.cache.flights import Abandoned, Flight, Flights, Found
from api.cache.memory import Memory
from api.cache.policy import Target
from api.cache.rendering import Answer, Unstorable
from api.cache.shared import WITHOUT_REDIS, Reservation, Shared, Versions
from ops.redis.client import NotSent, Unavailable
from ops.tasks import end

logger = logging.getLogger(__name__)

# How long a worker sends an entry from memory, counted from the moment at which it last asked Redis for the versions:
# first without a check (trust), then while a background task asks Redis again or, without Redis, computes the next
# entry (grace). Requests for a page in demand wait only if that task takes longer than the grace. Both times together
# bound how long a change goes unnoticed if its message is lost.
TRUST_SECONDS = 0.5
GRACE_SECONDS = 0.2
POLL_SECONDS = 0.002, 0.025  # pauses between two looks for another worker's entry: the first, and the longest
GIVE_BACK_SECONDS = 0.25  # between two attempts to give a lock back
UNLOCK_SECONDS = 0.2  # that a stopping worker has to delete its locks
MAX_PAUSED = 1024  # keys of entries that are not revalidated for a while after a failed computation
PATIENCE_SECONDS = 2.0  # that a request waits, at most, for an answer that goes by its age

HIT, STALE, MISS, COLLAPSED = "hit", "stale", "miss", "collapsed"
L1, L2, NO_TIER = "l1", "l2", "none"


class Pending(Exception):
    """The answer is still being computed, in the background."""


class Lookup:
    """Finds the entry for a request, and keeps the tiers up to date. Belongs to one event loop."""

    def __init__(self, render: Callable[[Target], Awaitable[Answer]], memory: Memory, shared: Shared) -> None:
        """`render` runs the application for an answer."""
        self.memory, self.shared = memory, shared
        self._render = render
        self._flights = Flights()
        self._revalidations = Flights()  # in the background; requests join one only without Redis
        self._tasks: set[asyncio.Task[Any]] = set()
        self._paused: dict[str, float] = {}  # by key: no revalidation until then, on the monotonic clock

    def in_memory(self, target: Target) -> tuple[Entry, str] | None:
        """Return the entry in memory and its outcome if it may be sent at once; revalidate it if it is in grace."""
        entry = self.memory.get(target.key)
        if entry is None:
            return None
        now = time.monotonic()
        if now >= entry.trusted_until:
            grace = entry.stale_until if target.policy.goes_by_age else entry.trusted_until + GRACE_SECONDS
            if now >= min(grace, entry.stale_until):
                return None
            self._revalidate_soon(target)
        return entry, HIT if now < entry.fresh_until else STALE

    async def find(self, target: Target) -> Found:
        """Return an entry, confirmed by Redis or computed, or an answer that is not stored.

        Raises Unstorable, Pending, or an error of the application.
        """
        by_age = target.policy.goes_by_age
        while flight := self._flights.get(target.key) or self._revalidation_without_redis(target.key):
            if time.monotonic() >= flight.asked + TRUST_SECONDS + GRACE_SECONDS and not by_age:
                break  # the flight's result may lack a change that this request has to see
            try:
                found = await self._join(flight)
            except Abandoned:
                continue
            return found._replace(outcome=COLLAPSED, is_shared=False) if found.outcome == MISS else found
        flight = self._flights.begin(target)
        if not by_age:
            return await self._flights.lead(flight, self._fetch)
        self._spawn(self._flights.lead(flight, self._fetch))
        return await self._join(flight)

    def _revalidation_without_redis(self, key: str) -> Flight | None:
        """Return the revalidation of an entry that is under way without Redis, for requests to join; else None.

        With Redis, a request does not wait for a computation in the background, since it may get the stale entry.
        """
        flight = self._revalidations.get(key)
        return flight if flight and flight.without_redis else None

    async def _join(self, flight: Flight) -> Found:
        """Wait for the result of a flight. Raises Pending if an answer that goes by its age is not there in time."""
        if flight.target.policy.goes_by_age:
            done, _ = await asyncio.wait([flight.result], timeout=PATIENCE_SECONDS)
            if not done:
                raise Pending
        return await self._flights.join(flight)

    def invalidate(self, tags: Iterable[str]) -> None:
        """Drop the entries and close the flights that depend on any of `tags`, since rows have changed."""
        for flight in (*self._flights.invalidate(tags), *self._revalidations.invalidate(tags)):
            self._unlock(flight)  # later requests, in any worker, need not wait for its result
        self.memory.invalidate(tags)

    def distrust(self) -> None:
        """Have Redis confirm each entry with tags before it is sent again, since changes may have been missed."""
        self._flights.invalidate()
        self._revalidations.invalidate()
        self.memory.distrust()

    def clear(self) -> None:
        self.memory.clear()

    async def close(self) -> None:
        await end(*self._tasks)
        if self._tasks:  # a computation that is cancelled deletes its lock in a task of its own
            await asyncio.wait(self._tasks, timeout=UNLOCK_SECONDS)
            await end(*self._tasks)

    # --- Work of a flight -------------------------------------------------------------------------

    async def _fetch(self, flight: Flight) -> Found:
        """Have Redis confirm the entry in memory, or return the one in Redis; compute it if neither is valid."""
        try:
            entry, versions = await self._look_up(flight)
        except Unavailable:
            return await self._compute(flight, None, fallback=self.memory.get(flight.target.key))
        if entry is None:
            return await self._compute_once(flight, versions)
        self._keep(entry, flight)
        if time.monotonic() < entry.fresh_until:
            return Found(entry, None, HIT, L2)
        self._revalidate_soon(flight.target)
        return Found(entry, None, STALE, L2)

    async def _revalidate(self, flight: Flight) -> Found:
        """Have Redis confirm the entry, in the background. Compute the next one if it is stale, or without Redis.

        Raises Abandoned if the entry is not valid any more: it is dropped, and nothing is computed.
        """
        try:
            entry, versions = await self._look_up(flight)
        except Unavailable:
            flight.without_redis = True
            return await self._compute(flight, None, fallback=self.memory.get(flight.target.key))
        if entry is None:
            self.memory.drop(flight.target.key)
            raise Abandoned
        self._keep(entry, flight)
        if time.monotonic() < entry.fresh_until:
            return Found(entry, None, HIT, L2)
        return await self._compute_once(flight, versions, fallback=entry)

    async def _look_up(self, flight: Flight) -> tuple[Entry | None, Versions | None]:
        """Return the valid entry or None, and the versions of its tags in Redis or None. Raises Unavailable.

        The entry in memory has its representations already: it is taken if its versions are current, unless the one
        in Redis is newer. An entry that goes by its age has no tags, and is valid without Redis, too. A cheap entry
        that is not in memory will probably be computed: its missing tags are made in the same round trip.
        """
        flight.asked = time.monotonic()
        held = self.memory.get(flight.target.key)
        entry: Entry | None
        versions: Versions | None
        try:
            make_tags = not held and not flight.target.policy.cost
            entry, versions = await self.shared.look_up(flight.target, make_tags=make_tags)
        except Unavailable:
            if not flight.target.policy.goes_by_age:
                raise
            entry, versions = None, {}
        if held and versions is not None and held.versions == versions:
            entry = entry if entry and entry.created > held.created else held
        return (entry if _is_usable(entry) else None), versions

    async def _compute_once(
        self, flight: Flight, versions: Versions | None, fallback: Entry | None = None
    ) -> Found:
        """Compute the entry, or return the one that another worker has stored meanwhile.

        If `versions` is None, Redis is asked for the versions of the tags. If the entry is expensive, the worker also
        takes its lock, or waits for the worker that has the lock, `cost` seconds at most.
        """
        cost = flight.target.policy.cost
        if versions is None or cost:
            give_up, pause = time.monotonic() + cost, POLL_SECONDS[0]
            while True:
                flight.asked = time.monotonic()
                reservation = await self._reserve(flight)
                if reservation.entry and time.monotonic() < reservation.entry.fresh_until:
                    self._unlock(flight)
                    self._keep(reservation.entry, flight)
                    return Found(reservation.entry, None, COLLAPSED, L2)
                if reservation.granted or time.monotonic() >= give_up:
                    break
                await asyncio.sleep(pause)
                pause = min(2 * pause, POLL_SECONDS[1])
            versions = reservation.versions
        return await self._compute(flight, versions, fallback)

    async def _reserve(self, flight: Flight) -> Reservation:
        """Ask Redis whether this worker may compute the entry. Without Redis, it may."""
        token = secrets.token_hex(8)
        try:
            reservation = await self.shared.reserve(flight.target, token)
        except NotSent:
            return WITHOUT_REDIS
        except (
            Unavailable,
            asyncio.CancelledError,
        ) as error:  # Redis may have set the lock, or may set it later
            if flight.target.policy.cost:
                self._spawn(self._give_back(flight.target, token))
            if isinstance(error, Unavailable):
                return WITHOUT_REDIS
            raise
        if reservation.lock:
            flight.lock, flight.locked_until = reservation.lock, flight.asked + reservation.lock_seconds
            if flight.outdated:
                self._unlock(flight)
        return reservation

    async def _compute(self, flight: Flight, versions: Versions | None, fallback: Entry | None) -> Found:
        """Have the application answer, and keep the entry. If it fails, return `fallback` (stale-if-error, RFC 5861).

        A `fallback` that is None or expired is not returned. `versions` are None if the entry cannot be shared.
        """
        created, began = time.time(), time.monotonic()
        try:
            answer = await self._render(flight.target)
        except Unstorable:  # no failure: the endpoint answers each of these requests itself from now on
            self._unlock(flight, drop=True)
            self.memory.drop(flight.target.key)
            raise
        except BaseException as error:
            self._unlock(flight)
            if isinstance(error, Exception) and _is_usable(fallback):
                return self._serve_stale(fallback, flight)
            raise
        if answer.status == HTTPStatus.OK and not answer.obstacle:
            known = {} if flight.target.policy.goes_by_age else versions
            seconds = time.monotonic() - began
            self.shared.durations.add(flight.target, seconds)
            entry = Entry(
                flight.target, answer.kept(), answer.body, created=created, versions=known, seconds=seconds
            )
            self._keep(entry, flight)
            is_shared = versions is not None and not flight.outdated
            if is_shared:
                lock = flight.end_lock()
                store = partial(self.shared.store, entry, flight.target, unlock=bool(lock))
                self._spawn(self._do_or_give_back(store, flight.target, lock))
            else:
                self._unlock(flight)
            return Found(entry, None, MISS, NO_TIER, is_shared and self.shared.takes_entries)
        failed = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        self._unlock(flight, drop=not failed)
        if failed and _is_usable(fallback):
            return self._serve_stale(fallback, flight)
        self.memory.drop(flight.target.key)
        return Found(None, answer, MISS, NO_TIER)

    # --- Steps ------------------------------------------------------------------------------------

    def _keep(self, entry: Entry, flight: Flight) -> None:
        """Keep a confirmed or computed entry in memory and trust it. A stale one is in grace at once."""
        if flight.outdated:
            return
        if self.memory.get(entry.key) is not entry:
            self.memory.put(entry, flight.target.tags)
        policy = flight.target.policy
        trusted = entry.fresh_until if policy.goes_by_age else flight.asked + TRUST_SECONDS
        entry.trusted_until = max(flight.asked, min(trusted, entry.fresh_until))

    def _serve_stale(self, entry: Entry, flight: Flight) -> Found:
        """Return the old entry after a failed computation.

        Unless the flight is outdated, the entry is trusted for a pause, in which it is not revalidated.
        """
        if not flight.outdated:
            self.memory.put(entry, flight.target.tags)  # takes it off the wire, too
            # An expensive computation that fails is not repeated all the time.
            pause = max(TRUST_SECONDS, entry.policy.cost) if entry.policy.goes_by_age else TRUST_SECONDS
            now = time.monotonic()
            paused_until = min(now + pause, entry.stale_until)
            # All that the wire sends counts as a hit: a fresh entry is not trusted beyond its fresh time.
            is_fresh = now < entry.fresh_until
            entry.trusted_until = min(paused_until, entry.fresh_until) if is_fresh else paused_until
            self._paused.pop(entry.key, None)
            self._paused[entry.key] = paused_until  # for PAGE_CACHE=l2, where memory keeps no entry
            if len(self._paused) > MAX_PAUSED:
                del self._paused[next(iter(self._paused))]
        return Found(entry, None, STALE, L1)

    def _unlock(self, flight: Flight, *, drop: bool = False) -> None:
        """Delete the lock in Redis if the flight holds one, and with `drop` the entry there, in the background."""
        if (lock := flight.end_lock()) or drop:
            delete = partial(self.shared.delete, flight.target.key, unlock=bool(lock), drop=drop)
            self._spawn(self._do_or_give_back(delete, flight.target, lock))

    async def _do_or_give_back(self, work: Callable[[], Awaitable[None]], target: Target, lock: str) -> None:
        """Do `work`, which also deletes `lock` (empty: none). If Redis is unavailable, keep trying to delete it."""
        try:
            await work()
        except Unavailable:
            if lock:
                await self._give_back(target, lock)

    async def _give_back(self, target: Target, lock: str) -> None:
        """Try to delete a lock until Redis has done it, or the lock has expired.

        Redis runs the SET that may have taken the lock before these commands, since one connection carries both. Only
        if that connection was lost in between, the SET may run later.
        """
        expired = time.monotonic() + target.policy.cost  # no lock lives longer
        while time.monotonic() < expired:
            with suppress(Unavailable):
                await self.shared.give_back(target.key, lock)
                return
            await asyncio.sleep(GIVE_BACK_SECONDS)

    def _revalidate_soon(self, target: Target) -> None:
        """Revalidate the entry in the background, unless that is under way or paused after a failed computation."""
        is_paused = time.monotonic() < self._paused.get(target.key, 0.0)
        if not is_paused and self._revalidations.get(target.key) is None:
            self._spawn(self._revalidations.lead(self._revalidations.begin(target), self._revalidate))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Start `work` as a task in the background."""
        task = asyncio.get_running_loop().create_task(work, context=Context())  # no part of the request
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, Abandoned | Unavailable | Unstorable):
            logger.error("The page cache failed in the background", exc_info=error)


def _is_usable(entry: Entry | None) -> TypeGuard[Entry]:
    """Whether there is an entry that may still be sent, fresh or stale."""
    return entry is not None and time.monotonic() < entry.stale_until
