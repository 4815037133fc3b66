"""The name of a request, in its answer and in every line that is logged of it."""

import re
from binascii import hexlify
from collections.abc import Iterable
from random import getrandbits

# Fits ids of other systems: UUIDs, ULIDs, trace ids. No character needs escaping in a header, a log or a shell.
WELL_FORMED = re.compile(rb"[A-Za-z0-9._~-]{1,128}")
# W3C Trace Context: version 00 of traceparent, and as much of tracestate as each system has to pass on.
TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACESTATE = re.compile(rb"[ -~]{1,512}")


def make() -> bytes:
    """Return 128 random bits in hexadecimal, in 0.1 us. Python seeds its generator anew in each worker."""
    return hexlify(getrandbits(128).to_bytes(16, "big"))


def of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the id of a request with these header fields."""
    for name, value in fields:
        if name == b"x-request-id":
            return choose(value)
    return make()


def choose(sent: bytes) -> bytes:
    """Return the id that the client sent if it is well formed, or else a new one."""
    return sent if WELL_FORMED.fullmatch(sent) else make()


def trace_of(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return the trace fields of a request with these header fields, for a call to another service.

    Nothing here makes a span, so both fields are passed on as they came (www.w3.org/TR/trace-context, 4.3).
    """
    parents = [value for name, value in fields if name == b"traceparent"]
    if len(parents) != 1 or not TRACEPARENT.fullmatch(parents[0]):
        return []
    trace = [("traceparent", parents[0].decode())]
    state = b",".join(value for name, value in fields if name == b"tracestate")
    return [*trace, ("tracestate", state.decode())] if TRACESTATE.fullmatch(state) else trace
