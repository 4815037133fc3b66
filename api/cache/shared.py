"""The second tier: entries in Redis, for all workers.

An entry is valid while each of its tags has the version that it had before the entry was computed. A change of rows
deletes their tags, a computation makes the missing tags, and a missing tag makes its entries invalid. So one
deletion invalidates any number of entries, a tag that Redis has lost costs a computation and never a wrong answer,
and an answer that was read before a change cannot be stored as valid after it.
"""

import math
import re
import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from api.cache.entry import Entry
from api.cache.locks import Durations
from api.cache.packing import Corrupt, pack, unpack
from api.cache.policy import POLICIES, Target
from ops.redis.client import Client, Unavailable
from ops.redis.connection import Command

EVERYTHING = "*"  # a tag of every entry
TAG_MARGIN_SECONDS = 60.0  # for which a tag outlives the last entry that was stored with it

RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)

Versions = dict[str, bytes]


def channel_of(prefix: str) -> str:
    """The channel in Redis on which invalidated tags are published."""
    return f"{prefix}:changed"


def key_of_tag(prefix: str, tag: str) -> str:
    """The key in Redis that holds the version of a tag. Its deletion invalidates the tag."""
    return f"{prefix}:tag:{tag}"


class Reservation(NamedTuple):
    """The reply of `Shared.reserve`: whether the caller may compute an entry, and the entry if Redis has it."""

    granted: bool  # whether the caller may compute
    lock: str  # the token of the lock that the caller holds and has to delete; empty if it holds none
    lock_seconds: float  # that the lock lives, counted from the request for it
    versions: Versions | None  # of the entry's tags, if all are known
    entry: Entry | None  # the valid one in Redis


# Without Redis, each worker computes for itself, and does not share the entry.
WITHOUT_REDIS = Reservation(granted=True, lock="", lock_seconds=0.0, versions=None, entry=None)


class Shared:
    def __init__(self, client: Client, prefix: str, release: str) -> None:
        """`prefix` separates services that share a Redis; `release` separates the entries of a service's releases."""
        self.client = client
        client.check = self.check_identity
        self.channel = channel_of(prefix)
        self.unpublished: set[str] = set()  # tags that were invalidated here, but not in Redis yet
        self.corrupt = 0
        self.takes_entries = True  # whether Redis took the last entry
        self.durations = Durations()
        self._prefix, self._release = prefix, release
        self._server: str | None = None  # the run id of the Redis that was checked last

    async def look_up(
        self, target: Target, *, make_tags: bool = False
    ) -> tuple[Entry | None, Versions | None]:
        """Return the valid entry or None, and the versions of its tags or None if one is missing. Raises Unavailable.

        With `make_tags`, the missing tags are made first, for a caller that will compute the entry if there is none.
        """
        make = self._make_tags(target) if make_tags else []
        *_, found = await self.client.run(*make, self._get(target))
        return self._read(target, found)

    async def reserve(self, target: Target, token: str) -> Reservation:
        """Make the missing tags; if the entry is expensive, try to take its lock, too. Raises Unavailable.

        A caller that does not get the lock asks again a little later, and finds the entry, or the lock free. The
        entry is read after the lock is taken, when the last holder has stored it.

        `token` marks the lock as the caller's. If the call is cancelled, or raises Unavailable other than NotSent,
        Redis may take the lock nevertheless: the caller then has to give it back.
        """
        cost, commands = target.policy.cost, self._make_tags(target)
        seconds = self.durations.lock_seconds(target)
        if cost:
            commands.append(("SET", self._lock(target.key), token, "NX", "PX", math.ceil(seconds * 1000)))
        *replies, found = await self.client.run(*commands, self._get(target))
        entry, versions = self._read(target, found)
        # A Redis that is full or read-only gives no locks: each worker then computes for itself.
        lock = replies[-1] if cost else None
        locked = lock is not None and not isinstance(lock, Exception)
        granted = not cost or lock is not None
        return Reservation(granted, token if locked else "", seconds, versions, entry)

    async def give_back(self, key: str, token: str) -> None:
        """Delete the lock of an entry if it has this token, even while the breaker is open. Raises Unavailable.

        If the lock expires after the MGET, and another worker takes it before the DEL, then the DEL deletes that
        worker's lock, and the entry may be computed twice.
        """
        [found] = await self.client.insist(("MGET", self._lock(key)))
        if _done(found) == [token.encode()]:
            _done(*await self.client.insist(("DEL", self._lock(key))))

    async def store(self, entry: Entry, target: Target, *, unlock: bool) -> None:
        """Store an entry until its `stale` seconds end, and with `unlock` delete its lock. Raises Unavailable."""
        lifetime = int((entry.policy.fresh + entry.policy.stale) * 1000)
        commands: list[Command] = [("SET", self._entry(entry.key), pack(entry), "PX", lifetime)]
        commands += [("EXPIRE", tag, _tag_lifetime(target)) for tag in map(self._tag, target.tags)]
        if unlock:
            commands.append(("DEL", self._lock(entry.key)))
        reply, *others = await self.client.run(*commands)
        self.takes_entries = not isinstance(reply, Exception)
        if unlock:
            _done(others[-1])

    async def delete(self, key: str, *, unlock: bool, drop: bool) -> None:
        """With `unlock` delete the lock, with `drop` the stored entry. Raises Unavailable."""
        _done(*await self.client.run(("DEL", *[self._lock(key)] * unlock, *[self._entry(key)] * drop)))

    async def invalidate(self, tags: Iterable[str], *, request: str = "", insist: bool = False) -> int:
        """Invalidate all entries that depend on the tags, and tell every worker. Raises Unavailable.

        Returns the number of workers that are told. `request` is appended to the tags in the message. With `insist`,
        Redis is asked even while the breaker is open.
        """
        tags = [*tags]
        run = self.client.insist if insist else self.client.run
        message = orjson.dumps([*tags, request] if request else tags)
        deleted, told = await run(("DEL", *map(self._tag, tags)), ("PUBLISH", self.channel, message))
        if isinstance(deleted, Exception):
            self.client.distrust(deleted)
            raise Unavailable(str(deleted)) from deleted
        return told if isinstance(told, int) else 0  # a Redis may refuse PUBLISH

    async def check_identity(self) -> None:
        """Invalidate everything if this is not the Redis that the entries were written to. Raises Unavailable.

        A replica that was promoted, or a server that has read its file again, may lack the last deletions: deleted
        tags are then back, and with them entries that are older than the database.
        """
        [found] = await self.client.insist(("INFO", "server"))
        said = RUN_ID.search(found) if isinstance(found, bytes) else None  # an error, where INFO is refused
        server = said and said[1].decode()
        if server in (None, self._server):
            return
        key = f"{self._prefix}:server"
        [known] = await self.client.insist(("MGET", key))
        if known != [server.encode()]:
            await self.invalidate([EVERYTHING], insist=True)
            await self.client.insist(("SET", key, server))
        self._server = server

    def _read(self, target: Target, found: Any) -> tuple[Entry | None, Versions | None]:
        """Return the valid entry of a reply to MGET or None, and the tags' versions or None if one is missing."""
        if not isinstance(found, list) or not self.unpublished.isdisjoint(target.tags):
            return None, None
        data, *values = found
        versions = dict(zip(target.tags, values, strict=True))
        are_known = all(isinstance(value, bytes) for value in values)
        entry = None
        # Even an invalid entry tells how long its computation took.
        if isinstance(data, bytes) and (are_known or self.durations.lacks(target)):
            try:
                entry = unpack(data, target)
            except Corrupt:
                self.corrupt += 1
            else:
                self.durations.learn(target, entry.seconds)
        if not are_known:
            return None, None
        return (entry if entry and entry.versions == versions else None), versions

    def _get(self, target: Target) -> Command:
        return "MGET", self._entry(target.key), *map(self._tag, target.tags)

    def _make_tags(self, target: Target) -> list[Command]:
        lifetime = _tag_lifetime(target)
        return [("SET", self._tag(tag), secrets.token_hex(8), "NX", "EX", lifetime) for tag in target.tags]

    def _entry(self, key: str) -> str:
        return f"{self._prefix}:entry:{self._release}:{key}"

    def _lock(self, key: str) -> str:
        return f"{self._prefix}:lock:{self._release}:{key}"

    def _tag(self, tag: str) -> str:
        return key_of_tag(self._prefix, tag)


def _done(reply: Any) -> Any:
    """Return `reply`. Raises Unavailable if it is an error, such as that of a Redis that takes no writes."""
    if isinstance(reply, Exception):
        raise Unavailable(str(reply)) from reply
    return reply


def _tag_lifetime(target: Target) -> int:
    """Return the seconds that a tag lives: longer than any entry does, since entries of all policies share tags."""
    sharing = (target.policy, *(policy for policy in POLICIES.values() if not policy.goes_by_age))
    return int(max(policy.fresh + policy.stale for policy in sharing) + TAG_MARGIN_SECONDS)
