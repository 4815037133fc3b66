"""The limits of a request on its connection: settings.REQUEST_LIMITS, kept in ops/gunicorn/edge.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are in seconds, sizes in bytes."""

    # The target of a request. RFC 9110, 4.1 asks for 8,000 at least.
    max_target_bytes: int = 8 * 1024
    # Target and fields. A whole request may take 16 kB more, and 8 bytes for each byte of its content (`_count` in
    # edge.py), which bounds trailers and chunk framing. nginx takes four lines of 8 kB for a head.
    max_head_bytes: int = 32 * 1024
    # The number of fields, as in Apache. A browser sends 20.
    max_fields: int = 100
    # For a head, from its first byte; for a client that sends or reads nothing; and the span over which the least
    # rate is averaged. After an answer, an idle connection has the keep-alive time instead.
    patience_seconds: float = 10.0
    # The least rate at which content has to come, as in Kestrel. A modem is ten times as fast.
    min_bytes_per_second: int = 240
    # For the client to close after a refusal, and for the rest of a request when the server stops.
    linger_seconds: float = 2.0
