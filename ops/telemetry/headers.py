"""The headers of every answer: its id, its duration, and its stages.

X-Request-Duration is in seconds, Server-Timing (w3.org/TR/server-timing) in milliseconds by stage. Both tell the time
until the headers are sent: the response stage goes on after them.
"""

from ops.telemetry.stopwatch import Stopwatch

BUDGETED = b"middleware;dur=%.3f, auth;dur=%.3f, db;dur=%.3f, serialisation;dur=%.3f, response;dur=%.3f"
# For a request that only looked into the cache.
LOOK = BUDGETED.replace(b"%.3f", b"0.000") + b", cache;dur=%.3f"
HIT = b"x-request-id: %b\r\nx-request-duration: %.6f\r\n"
FIELD_NAMES = frozenset((b"x-request-id", b"x-request-duration", b"server-timing"))
TIMED_HIT = HIT + b"server-timing: " + LOOK + b"\r\n"


def headers(watch: Stopwatch, *, stages: bool) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of an answer that begins now, with Server-Timing if `stages`."""
    total = watch.respond()
    if not stages:
        return (b"x-request-id", watch.request_id), (b"x-request-duration", b"%.6f" % total)
    middleware, auth, db, serialisation, response, cache, queue, upstream = watch.seconds
    if cache == total:
        timing = LOOK % (cache * 1e3)
    else:
        timing = BUDGETED % (middleware * 1e3, auth * 1e3, db * 1e3, serialisation * 1e3, response * 1e3)
        if cache:
            timing += b", cache;dur=%.3f" % (cache * 1e3)
        if queue:
            timing += b", queue;dur=%.3f" % (queue * 1e3)
        if upstream:
            timing += b", upstream;dur=%.3f" % (upstream * 1e3)
    return (
        (b"x-request-id", watch.request_id),
        (b"x-request-duration", b"%.6f" % total),
        (b"server-timing", timing),
    )


def hit_block(request_id: bytes, seconds: float, *, stages: bool) -> bytes:
    """Return the same fields as lines, for a cache hit that is written without ASGI: it has one stage. 0.2 us."""
    return TIMED_HIT % (request_id, seconds, seconds * 1e3) if stages else HIT % (request_id, seconds)
