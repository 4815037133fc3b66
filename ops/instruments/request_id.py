"""The name of a request, in its answer and in every line that is logged of it."""

import re
from binascii import hexlify
from collections.abc import Iterable
from random import getrandbits

# What other systems send: UUIDs, ULIDs, trace ids. Nothing in it needs escaping in a header, a log or a shell.
WELL_FORMED = re.compile(rb"[A-Za-z0-9._~-]{1,128}")


def make() -> bytes:
    """128 random bits in hexadecimal, as a trace id has; Python seeds its generator anew in each worker. 0.1 us."""
    return hexlify(getrandbits(128).to_bytes(16, "big"))


def of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The id of a request with these header fields."""
    for name, value in fields:
        if name == b"x-request-id":
            return choose(value)
    return make()


def choose(sent: bytes) -> bytes:
    """The id that the client sent, if it is well formed."""
    return sent if WELL_FORMED.fullmatch(sent) else make()
