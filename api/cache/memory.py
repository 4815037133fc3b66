"""The first tier: the worker's own entries, bounded in bytes and in number.

The entry that was looked up least recently is evicted first. A hit of the wire does not count as a look-up.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, MutableMapping

from api.cache.entry import Entry
from ops.gunicorn.wire import Ready

MAX_BYTES = 32 * 1024 * 1024  # of one worker: 700 pages of 100 products with two codings
MAX_ENTRIES = 4096
MAX_TARGETS = (
    8  # request targets of an entry that the wire knows; requests with further targets go through ASGI
)
MAX_RECENT_TARGETS = 4096
MAX_TARGET_BYTES = 512  # of such a target: a client can write any number of "&" into it


class Memory:
    """Entries by their key, and by the tags that they depend on.

    In `wire`, the protocol looks them up by request target. An entry that leaves the memory leaves `wire`, too.
    `recent` are the targets that `wire` had lately: the wire of an overloaded worker does not refuse these.
    If `max_bytes` is 0, the memory holds nothing.
    """

    def __init__(
        self,
        wire: MutableMapping[bytes, Ready],
        recent: MutableMapping[bytes, None] | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self.bytes = 0
        self.evictions: Counter[str] = Counter()
        self._wire, self._max_bytes, self._max_entries = wire, max_bytes, max_entries
        self._recent = {} if recent is None else recent
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
        """Keep an entry in place of the one with the same key. The wire has it only after `learn`."""
        self.drop(entry.key)
        size = entry.size
        if size > self._max_bytes // 8:  # it would push out too many others
            return
        self._entries[entry.key] = entry, tags, size
        for tag in tags:
            self._dependents.setdefault(tag, set()).add(entry.key)
        self.bytes += size
        self._make_room()

    def learn(self, entry: Entry, raw_target: bytes) -> None:
        """Have the wire answer the request target `raw_target` with the entry, if the entry is in memory."""
        raw_targets = entry.raw_targets
        if raw_target in raw_targets or len(raw_targets) == MAX_TARGETS or len(raw_target) > MAX_TARGET_BYTES:
            return
        held = self._entries.get(entry.key)
        if held and held[0] is entry:
            raw_targets.add(raw_target)
            self._wire[raw_target] = entry
            self.bytes += len(raw_target)
            self._recent.pop(raw_target, None)
            self._recent[raw_target] = None  # as the newest
            if len(self._recent) > MAX_RECENT_TARGETS:
                del self._recent[next(iter(self._recent))]
            self._make_room()

    def _make_room(self) -> None:
        while self.bytes > self._max_bytes or len(self._entries) > self._max_entries:
            self.evictions["full"] += 1
            self.drop(next(iter(self._entries)))

    def drop(self, key: str) -> None:
        """Remove an entry from memory and from the wire, and end its trust, since a request may still hold it."""
        held = self._entries.pop(key, None)
        if held is None:
            return
        entry, tags, size = held
        self.bytes -= size + sum(map(len, entry.raw_targets))
        entry.trusted_until = 0.0
        for raw_target in entry.raw_targets:
            if self._wire.get(raw_target) is entry:
                del self._wire[raw_target]
        entry.raw_targets.clear()
        for tag in tags:
            dependents = self._dependents[tag]
            dependents.discard(key)
            if not dependents:
                del self._dependents[tag]

    def invalidate(self, tags: Iterable[str]) -> None:
        """Drop all entries that depend on any of `tags`."""
        for tag in tags:
            for key in [*self._dependents.get(tag, ())]:
                self.evictions["invalidated"] += 1
                self.drop(key)

    def distrust(self) -> None:
        """Have every entry revalidated: before it is sent again, or in the background if it goes by its age."""
        for entry, _, _ in self._entries.values():
            entry.trusted_until = 0.0

    def clear(self) -> None:
        for key in [*self._entries]:
            self.drop(key)
