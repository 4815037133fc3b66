"""The second tier: entries in Redis, for all workers.

An entry is valid while each of its tags has the version that it had before the entry was computed. Whoever changes
rows deletes their tags, whoever computes an entry makes those that are missing, and a missing tag makes every entry
invalid: so one deletion invalidates any number of entries, a forgotten tag costs a computation and never a wrong
answer, and an answer that was read before a change cannot be stored after it.
"""

import secrets
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from api.cache.entry import Entry
from api.cache.packing import Corrupt, pack, unpack
from api.cache.policy import POLICIES, Policy
from ops.redis.client import Client, Command, Unavailable

EVERYTHING = "*"  # a tag of every entry
LOCK = 2.0  # seconds until a lock is free whose holder died
TAG_MARGIN = 60.0  # seconds that a tag outlives the last entry that was computed with it

# Deletes a lock that is still one's own.
UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"

Versions = dict[str, bytes]


def channel_of(prefix: str) -> str:
    """Where changes are told."""
    return f"{prefix}:changed"


def key_of_tag(prefix: str, tag: str) -> str:
    """What is deleted when something has changed."""
    return f"{prefix}:tag:{tag}"


class Target(NamedTuple):
    """What a request asks the cache for."""

    policy: Policy
    key: str
    tags: tuple[str, ...]


class Reservation(NamedTuple):
    """Whether the caller may compute an entry, with which versions of its tags, or the entry that there is by now."""

    granted: bool
    versions: Versions | None
    entry: Entry | None


class Shared:
    def __init__(self, client: Client, prefix: str) -> None:
        """`prefix` keeps services apart that share a Redis."""
        self.client = client
        client.check = self.recognise
        self.channel = channel_of(prefix)
        self.untold: set[str] = set()  # tags that have changed here, of which Redis does not know yet
        self.corrupt = 0
        self._prefix = prefix
        self._server: str | None = None  # which Redis it is

    async def look(self, target: Target) -> tuple[Entry | None, Versions | None]:
        """The valid entry, if there is one, and the versions of its tags, if all are known. Raises Unavailable."""
        data, *values = await self.client.read([self._entry(target.key), *map(self._tag, target.tags)])
        versions = self._versions(target, values)
        return self._valid(target, data, versions), versions

    async def reserve(self, target: Target, token: str) -> Reservation:
        """Ask to be the one who computes the entry. Raises Unavailable.

        Who is refused asks again a little later, and finds the entry, or the lock free. The entry is read after the
        lock was taken: who had it before has stored by then.
        """
        # Entries of all policies share the tags: the longest of their lives counts.
        lifetime = int(max(p.fresh + p.stale for p in (target.policy, *POLICIES.values())) + TAG_MARGIN)
        commands: list[Command] = [("SET", self._lock(target.key), token, "NX", "PX", int(LOCK * 1000))]
        for tag in target.tags:
            commands.append(("SET", self._tag(tag), secrets.token_hex(8), "NX", "EX", lifetime))
            commands.append(("GETEX", self._tag(tag), "EX", lifetime))
        lock, *replies, data = await self.client.run(*commands, ("GET", self._entry(target.key)))
        versions = self._versions(target, replies[1::2])
        # A Redis that is full or read-only gives no locks: each worker is then on its own.
        granted = lock is not None
        return Reservation(granted, versions, self._valid(target, data, versions))

    async def store(self, entry: Entry, token: str) -> None:
        """Store the entry for as long as it may be used, and give the lock back. Raises Unavailable."""
        lifetime = int((entry.policy.fresh + entry.policy.stale) * 1000)
        stored: Command = ("SET", self._entry(entry.key), pack(entry), "PX", lifetime)
        await self.client.run(stored, self._unlocking(entry.key, token))

    async def release(self, key: str, token: str, *, drop: bool = False) -> None:
        """Give the lock back without an entry; with `drop`, delete the one that there is. Raises Unavailable."""
        dropped: list[Command] = [("DEL", self._entry(key))] if drop else []
        await self.client.run(*dropped, self._unlocking(key, token))

    async def change(self, tags: Iterable[str], *, insist: bool = False) -> None:
        """Invalidate all entries that depend on the tags, and tell every worker. Raises Unavailable.

        With `insist`, Redis is asked even if it did not answer a moment ago.
        """
        tags = [*tags]
        run = self.client.insist if insist else self.client.run
        deleted, _ = await run(("DEL", *map(self._tag, tags)), ("PUBLISH", self.channel, orjson.dumps(tags)))
        if isinstance(deleted, Exception):
            self.client.distrust(deleted)
            raise Unavailable(str(deleted)) from deleted

    async def recognise(self) -> None:
        """Invalidate everything if this is not the Redis that wrote it. Raises Unavailable.

        A replica that was promoted, or a server that has read its file again, may lack the last changes: it has tags
        again that were deleted, and with them entries that are older than the database.
        """
        [found] = await self.client.insist(("INFO", "server"))
        server = found.get("run_id") if isinstance(found, dict) else None  # who may not ask gets an error
        if server in (None, self._server):
            return
        key = f"{self._prefix}:server"
        [known] = await self.client.insist(("GET", key))
        if known != server.encode():
            await self.change([EVERYTHING], insist=True)
            await self.client.insist(("SET", key, server))
        self._server = server

    def _versions(self, target: Target, values: Iterable[Any]) -> Versions | None:
        if not self.untold.isdisjoint(target.tags):
            return None
        versions = dict(zip(target.tags, values, strict=True))
        return versions if all(isinstance(value, bytes) for value in versions.values()) else None

    def _valid(self, target: Target, data: Any, versions: Versions | None) -> Entry | None:
        if versions is None or not isinstance(data, bytes):
            return None
        try:
            entry = unpack(data, target.policy, target.key)
        except Corrupt:
            self.corrupt += 1
            return None
        return entry if entry.versions == versions else None

    def _unlocking(self, key: str, token: str) -> Command:
        return "EVAL", UNLOCK, 1, self._lock(key), token

    def _entry(self, key: str) -> str:
        return f"{self._prefix}:entry:{key}"

    def _lock(self, key: str) -> str:
        return f"{self._prefix}:lock:{key}"

    def _tag(self, tag: str) -> str:
        return key_of_tag(self._prefix, tag)
