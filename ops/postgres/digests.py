"""The digest of a row's JSON, the same from Postgres and from Python: the text in an entity tag (RFC 9110, 8.8.3).

A statement that changes a row compares the present row's digest with that of the row which its client has seen.
SHA-256 is the one hash that is fast on both sides: 2 us in Postgres for a row of 200 bytes.
"""

from hashlib import sha256

from django.db.models import Func, TextField

DIGITS = 24  # hexadecimal, so 96 bits: an entity tag only tells versions of one resource apart, it guards no secret


def digest(text: bytes) -> str:
    """The digest of JSON text."""
    return sha256(text).hexdigest()[:DIGITS]


class Digest(Func):
    """The same digest, computed by Postgres from a text."""

    template = f"left(encode(sha256(convert_to(%(expressions)s, 'UTF8')), 'hex'), {DIGITS})"
    arity = 1
    output_field = TextField()
