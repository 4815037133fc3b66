"""A stored answer, and its representations: what is sent, ready to the last byte.

All that does not change from one request to the next is made once: the codings, their entity tags, the fields, and
once a second those that tell the time. A representation is sent as ASGI messages or written to the socket as it is.
"""

import time
from collections.abc import Mapping
from hashlib import blake2b

from api.cache.conditions import Conditions, http_date, is_unchanged, read
from api.cache.encodings import CODERS, IDENTITY, choose
from api.cache.policy import Policy
from ops.asgi.protocol import Fields
from ops.asgi.wire import Representation

SMALLEST = 1024  # bytes that are worth a coding: below, the saved ones fit the same packet
COMPRESSIBLE = (b"text/", b"application/json")
WIRE_HIT = "hit", "wire"  # outcome and tier
NAME = b"sub10"  # of this cache, in Cache-Status (RFC 9211)
OVERHEAD = 2900  # bytes of Python objects, of a representation and again of the entry (tracemalloc)
MOST_SPELLINGS = 8  # request targets under which the wire knows a page; others take the way through ASGI
LONGEST_SPELLING = 512  # bytes of such a target: anybody can write as many "&" into one as they like

# What a 304 repeats of the answer (RFC 9110, section 15.4.5).
REPEATED = frozenset((b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"))


class Teller:
    """Tells how old an answer is and how it came about.

    A thing of its own, so that no representation refers to its entry: in a cycle, what has left the memory would wait
    for a full garbage collection (a worker after 30,000 different pages of 1 kB: 145 MB instead of 97).
    """

    __slots__ = ("_created", "_fresh", "_second", "_told")

    def __init__(self, created: float, fresh: float) -> None:
        self._created, self._fresh = created, fresh
        self._second = 0
        self._told: Fields = []

    def told(self) -> Fields:
        """The fields that tell of a hit in the worker's memory; they change with the second."""
        second = int(time.time())
        if second != self._second:
            self._told, self._second = self.tell(b"hit; ttl=%d; detail=l1"), second
        return self._told

    def tell(self, how: bytes) -> Fields:
        """The fields that tell how old the answer is and how it came about (RFC 9111, 5.1; RFC 9211).

        `how` may have a place for the seconds that are left of its freshness.
        """
        age = max(0, int(time.time()) - int(self._created))
        if b"%d" in how:
            how %= int(self._fresh) - age
        return [(b"age", b"%d" % age), (b"cache-status", b"%b; %b" % (NAME, how))]


class Entry:
    """An answer with status 200, its times, and what it depends on.

    `created` is in seconds since the epoch, since it travels between machines; the worker's own times are
    monotonic: `calm_until` the page may be sent without a thought, `live_until` with one, `fresh_until` it is
    fresh, and `stale_until` it is better than an error.
    """

    __slots__ = (
        "_has_codings", "body", "calm_until", "cost", "created", "etag", "fields", "fresh_until", "key",
        "live_until", "modified", "policy", "quiet_until", "representations", "stale_until", "targets",
        "teller", "versions",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        key: str,
        fields: Fields,
        body: bytes,
        *,
        created: float,
        cost: float,
        versions: Mapping[str, bytes] | None,
        etag: bytes = b"",
    ) -> None:
        """`cost` is what it took to compute, in seconds; `versions` those of its tags, None if nobody knew them."""
        self.policy, self.key, self.fields, self.body = policy, key, fields, body
        self.created, self.cost, self.versions = created, cost, versions
        self.etag = etag or blake2b(body, digest_size=12).hexdigest().encode()
        self.modified = next((http_date(value) for name, value in fields if name == b"last-modified"), None)
        self._has_codings = len(body) >= SMALLEST and any(
            name == b"content-type" and value.startswith(COMPRESSIBLE) for name, value in fields
        )
        self.representations: dict[str, Representation] = {}
        self.targets: set[bytes] = set()
        self.teller = Teller(created, policy.fresh)
        now, age = time.monotonic(), max(0.0, time.time() - created)  # the clock that wrote it may be ahead
        self.fresh_until = now + policy.fresh - age
        self.stale_until = self.fresh_until + policy.stale
        self.calm_until = self.live_until = self.quiet_until = 0.0

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, roughly: its body, and half of that again in each coding."""
        codings = len(CODERS) if self._has_codings else 0
        return len(self.key) + (2 + codings) * (OVERHEAD + len(self.body) // 2)

    def select(self, conditions: Conditions) -> Representation:
        """The representation that serves the client best, or 304 if that is the one it has."""
        coding = choose(conditions.accept_encoding) if self._has_codings else IDENTITY
        chosen = self.representations.get(coding) or self._make(coding)
        if is_unchanged(conditions, chosen.etag, self.modified):
            return chosen.not_modified or chosen
        return chosen

    @property
    def route(self) -> str:
        return self.policy.route

    def answer(self, fields: Fields) -> Representation | None:
        """What the wire answers to a request with these header fields, if it may; see ops/asgi/wire.py."""
        conditions = read(fields)
        if conditions is None:
            return None
        self.policy.counts[WIRE_HIT] += 1
        return self.select(conditions)

    def _make(self, coding: str) -> Representation:
        coded = coding != IDENTITY
        body = CODERS[coding](self.body) if coded else self.body
        etag = b'"%b-%b"' % (self.etag, coding.encode()) if coded else b'"%b"' % self.etag
        fields = [*self.fields, (b"cache-control", self.policy.cache_control), (b"etag", etag)]
        if self._has_codings:
            fields.append((b"vary", b"accept-encoding"))
        kept = [(name, value) for name, value in fields if name in REPEATED]
        if coded:
            fields.append((b"content-encoding", coding.encode()))
        fields.append((b"content-length", b"%d" % len(body)))
        made = Representation(200, fields, body, etag, self.teller.told)
        made.not_modified = Representation(304, kept, b"", etag, self.teller.told)
        self.representations[coding] = made
        return made
