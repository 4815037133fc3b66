"""A stored answer and its representations, each ready to the last byte.

Everything that is the same for each request is made once: the codings, their entity tags, the header fields, and
once a second the fields that change with time. A representation is sent as ASGI messages or written to the socket.
"""

import time
from collections.abc import Mapping

from api.cache.conditions import Conditions, conditions_of, http_date, is_unchanged
from api.cache.encodings import CODERS, IDENTITY, choose
from api.cache.policy import Target
from ops import project
from ops.asgi.types import Fields
from ops.gunicorn.wire import Representation
from ops.postgres.digests import digest

MIN_CODED_BYTES = 1024  # of a body that gets codings: a smaller one fits one packet without them
COMPRESSIBLE = (b"text/", b"application/json")
WIRE_HIT = "hit", "wire"  # outcome and tier
CACHE_NAME = project.NAME.encode()  # the name of this cache in Cache-Status (RFC 9211)
# The bytes of Python objects, by tracemalloc: for an entry itself, and for each of its representations.
OVERHEAD_BYTES = 2900

MAX_AHEAD_SECONDS = 1.0  # that the clock of another host may be ahead
# Fields that a 304 repeats (RFC 9110, section 15.4.5).
REPEATED = frozenset((b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"))


class CacheStatus:
    """The header fields Age (RFC 9111, section 5.1) and Cache-Status (RFC 9211) of an entry.

    It is an object of its own, so that no representation refers to its entry: evicted entries in a reference cycle
    would wait for a full garbage collection (a worker had 145 MB instead of 97 after 30,000 different pages of 1 kB).
    """

    __slots__ = ("_created", "_fresh", "_hit_fields", "_second")

    def __init__(self, created: float, fresh: float) -> None:
        """`created` is in seconds since the epoch; `fresh` is how many seconds the entry is fresh."""
        self._created, self._fresh = created, fresh
        self._second = 0
        self._hit_fields: Fields = []

    def from_memory(self) -> Fields:
        """Return the fields of an answer from the worker's memory, fresh or stale; they change once a second."""
        second = int(time.time())
        if second != self._second:
            self._hit_fields, self._second = self.fields(b"hit; ttl=%d; detail=l1"), second
        return self._hit_fields

    def fields(self, detail: bytes) -> Fields:
        """Return both fields. `detail` follows the cache's name; `%d` in it becomes the seconds left until stale."""
        age = max(0, int(time.time()) - int(self._created))
        if b"%d" in detail:
            detail %= int(self._fresh) - age
        return [(b"age", b"%d" % age), (b"cache-status", b"%b; %b" % (CACHE_NAME, detail))]


class Entry:
    """An answer with status 200, its times, and the versions of the tags that it depends on.

    `created` is in seconds since the epoch, since it travels between machines. The other times are on the worker's
    monotonic clock:

    state       | until                           | a request for it
    ------------+---------------------------------+---------------------------------------------------------------
    trusted     | `trusted_until`                 | gets it from the wire or from memory; nothing else is done
    in grace    | `trusted_until` + GRACE_SECONDS | gets it from memory; it is revalidated in the background
    unconfirmed | `stale_until`                   | asks Redis for the versions of its tags, and waits for the reply
    expired     | it is replaced                  | waits for the next entry, from Redis or computed

    For an unconfirmed entry, there are three cases. If the versions in Redis are those of the entry, the request gets
    the entry, which is trusted again. If they differ, the request gets the next entry, from Redis or computed, or the
    error of that computation. If Redis is not available, the next entry is computed; if the computation fails, the
    request gets the old one.

    A revalidation in the background asks Redis, too. If the versions differ, and Redis has no newer entry, it drops
    this one and computes nothing. It computes the next one only if this one is stale or Redis is not available.

    Until `fresh_until` the entry is a hit. After that it is stale: it is not trusted, and a request that gets it
    starts the computation of the next one in the background. If the computation fails, the stale entry is trusted
    until the next attempt, in memory but not on the wire.

    An entry that goes by its age is trusted until `fresh_until`, and in grace until `stale_until`.
    """

    __slots__ = (
        "_has_codings", "age_and_status", "body", "created", "etag", "fields", "fresh_until", "key", "modified",
        "policy", "raw_targets", "representations", "route", "scheme", "seconds", "stale_until", "trusted_until",
        "versions",
    )  # fmt: skip

    def __init__(
        self,
        target: Target,
        fields: Fields,
        body: bytes,
        *,
        created: float,
        versions: Mapping[str, bytes] | None,
        etag: bytes = b"",
        seconds: float = 0.0,
    ) -> None:
        """`versions` are those of the entry's tags, or None if they were not known: such an entry is not shared.

        `etag` is the ETag with which an entry from Redis was stored; a new entry gets the digest of its body.
        `seconds` is how long the computation took.
        """
        self.policy, self.key, self.route = target.policy, target.key, target.route
        self.scheme = target.scheme
        self.fields, self.body = fields, body
        self.created, self.versions, self.seconds = created, versions, seconds
        self.etag = etag or digest(body).encode()
        self.modified = next((http_date(value) for name, value in fields if name == b"last-modified"), None)
        self._has_codings = len(body) >= MIN_CODED_BYTES and any(
            name == b"content-type" and value.startswith(COMPRESSIBLE) for name, value in fields
        )
        self.representations: dict[str, Representation] = {}
        self.raw_targets: set[bytes] = set()  # request targets by which the wire finds it
        # The clock of another host may be ahead. If it is ahead by more than MAX_AHEAD_SECONDS, the age is unknown,
        # and the entry counts as stale; if by less, the age counts as 0.
        now, wall = time.monotonic(), time.time()
        if created - wall > MAX_AHEAD_SECONDS:
            created = wall - target.policy.fresh
        age = max(0.0, wall - created)
        self.age_and_status = CacheStatus(created, target.policy.fresh)
        self.trusted_until = 0.0
        self.fresh_until = now + target.policy.fresh - age
        self.stale_until = self.fresh_until + target.policy.stale

    @property
    def size(self) -> int:
        """The bytes that the entry takes, roughly: its key, its body, half a body for each coding, and overhead."""
        codings = len(CODERS) if self._has_codings else 0
        return len(self.key) + (2 + codings) * (OVERHEAD_BYTES + len(self.body) // 2)

    def select(self, conditions: Conditions) -> Representation:
        """Return the representation in the coding that the client prefers, or its 304 if the client has it already.

        A representation is made when it is first selected, and kept.
        """
        coding = choose(conditions.accept_encoding) if self._has_codings else IDENTITY
        chosen = self.representations.get(coding)
        if chosen is None:
            coded = coding != IDENTITY
            body = CODERS[coding](self.body) if coded else self.body
            etag = b'"%b-%b"' % (self.etag, coding.encode()) if coded else b'"%b"' % self.etag
            fields = [*self.fields, (b"cache-control", self.policy.cache_control), (b"etag", etag)]
            if self._has_codings:
                fields.append((b"vary", b"accept-encoding"))
            repeated = [(name, value) for name, value in fields if name in REPEATED]
            if coded:
                fields.append((b"content-encoding", coding.encode()))
            fields.append((b"content-length", b"%d" % len(body)))
            chosen = Representation(200, fields, body, etag, self.age_and_status.from_memory)
            chosen.not_modified = Representation(304, repeated, b"", etag, self.age_and_status.from_memory)
            self.representations[coding] = chosen
        if is_unchanged(conditions, chosen.etag, self.modified):
            return chosen.not_modified or chosen
        return chosen

    def select_ready(self, fields: Fields) -> Representation | None:
        """Like `select`, for a request with these header fields; it counts a hit of the wire (ops/gunicorn/wire.py).

        Return None for a request with a rare condition or with content, which the ASGI layer answers.
        """
        conditions = conditions_of(fields)
        if conditions is None or conditions.rare:
            return None
        self.policy.counts[WIRE_HIT] += 1
        return self.select(conditions)
