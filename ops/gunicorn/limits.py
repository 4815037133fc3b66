"""The limits of a request on its connection: settings.REQUEST_LIMITS, kept in ops/gunicorn/edge.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are in seconds, sizes in bytes."""

    # Of the request line. RFC 9110, 4.1 asks for 8,000 at least.
    max_target_bytes: int = 8 * 1024
    # Target and fields; as much again for trailers and all that frames chunks. nginx takes four lines of 8 kB.
    max_head_bytes: int = 32 * 1024
    # How many: as Apache. A browser sends 20.
    max_fields: int = 100
    # For a head, from its first byte; for silence; and the span over which the least rate is averaged. An idle
    # connection that has had an answer has the keep-alive time.
    patience_seconds: float = 10.0
    # The least at which content arrives, in bytes a second: as Kestrel. A modem has ten times as much.
    min_bytes_per_second: int = 240
    # For the client to close after a refusal, and for the rest of a request when the server stops.
    linger_seconds: float = 2.0
