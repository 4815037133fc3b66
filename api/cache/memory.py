"""The first tier: the worker's own entries, bounded in bytes and in number, least recently used out first."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, MutableMapping

from api.cache.entry import LONGEST_SPELLING, MOST_SPELLINGS, Entry
from ops.asgi.wire import Ready

BYTES = 32 * 1024 * 1024  # a worker's; 700 pages of 100 products with two codings
ENTRIES = 4096


class Memory:
    """Entries by their key, and by what they depend on.

    `wire` is where the protocol looks them up by request target. An entry that leaves the memory leaves that, too.
    """

    def __init__(
        self, wire: MutableMapping[bytes, Ready], *, most_bytes: int = BYTES, most_entries: int = ENTRIES
    ) -> None:
        self.bytes = 0
        self.evictions: Counter[str] = Counter()
        self._wire, self._most_bytes, self._most_entries = wire, most_bytes, most_entries
        self._entries: OrderedDict[str, tuple[Entry, tuple[str, ...], int]] = OrderedDict()
        self._dependents: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Entry | None:
        held = self._entries.get(key)
        if held is None:
            return None
        self._entries.move_to_end(key)
        return held[0]

    def put(self, entry: Entry, tags: tuple[str, ...]) -> None:
        """Keep an entry, in place of the one that has its key."""
        self.drop(entry.key)
        size = entry.size
        if size > self._most_bytes // 8:  # it would push out too many others
            return
        self._entries[entry.key] = entry, tags, size
        for tag in tags:
            self._dependents.setdefault(tag, set()).add(entry.key)
        self.bytes += size
        while self.bytes > self._most_bytes or len(self._entries) > self._most_entries:
            self.evictions["full"] += 1
            self.drop(next(iter(self._entries)))

    def spell(self, entry: Entry, target: bytes) -> None:
        """Let the wire answer `target` with an entry that is kept."""
        if target in entry.targets or len(entry.targets) == MOST_SPELLINGS or len(target) > LONGEST_SPELLING:
            return
        held = self._entries.get(entry.key)
        if held and held[0] is entry:
            entry.targets.add(target)
            self._wire[target] = entry
            self.bytes += len(target)

    def drop(self, key: str) -> None:
        held = self._entries.pop(key, None)
        if held is None:
            return
        entry, tags, size = held
        self.bytes -= size + sum(map(len, entry.targets))
        entry.calm_until = entry.live_until = 0.0
        for target in entry.targets:
            if self._wire.get(target) is entry:
                del self._wire[target]
        for tag in tags:
            dependents = self._dependents[tag]
            dependents.discard(key)
            if not dependents:
                del self._dependents[tag]

    def forget(self, tags: Iterable[str]) -> None:
        """Drop all entries that depend on any of `tags`."""
        for tag in tags:
            for key in [*self._dependents.get(tag, ())]:
                self.evictions["invalidated"] += 1
                self.drop(key)

    def doubt(self) -> None:
        """Send nothing until it was looked into whether it is still valid."""
        for entry, _, _ in self._entries.values():
            entry.calm_until = entry.live_until = 0.0

    def clear(self) -> None:
        for key in [*self._entries]:
            self.evictions["cleared"] += 1
            self.drop(key)
