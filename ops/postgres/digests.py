"""The digest of a row's JSON, the same from Postgres and from Python: the word in an entity tag (RFC 9110, 8.8.3).

A statement that changes a row compares the digest of the row that there is with the one that its client has seen.
SHA-256 is the one hash that is fast on both sides: 2 us in Postgres for a row of 200 bytes.
"""

from hashlib import sha256

from django.db.models import Func, TextField

DIGITS = 24  # hexadecimal, 96 bits: an entity tag tells versions of one resource apart, and guards nothing


def digest(text: bytes) -> str:
    """The digest of JSON text."""
    return sha256(text).hexdigest()[:DIGITS]


class Digest(Func):
    """The same of a text in the database."""

    template = f"left(encode(sha256(convert_to(%(expressions)s, 'UTF8')), 'hex'), {DIGITS})"
    arity = 1
    output_field = TextField()
