"""Cursors: where a page begins, opaque and signed.

A cursor holds the sort key of the row next to the page and the direction to read. It is signed together with the list
that it continues (resource, sort and filters), so a client can neither use it for another list nor make one up.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from functools import cache

import orjson
from django.conf import settings

from api.reads.parameters import Malformed, ParameterType

SIGNATURE_BYTES = 16  # of keyed BLAKE2b (RFC 7693), which takes 0.4 us where hmac.digest takes 1.3 to 3.5
MAX_KEY_CHARACTERS = 255  # of each text in a key; the system check api.E004 refuses longer ones
# For two texts of MAX_KEY_CHARACTERS: JSON takes up to six bytes for a character, and base64 makes eight of them.
MAX_CHARACTERS = 2 * 8 * MAX_KEY_CHARACTERS + 80


@dataclass(frozen=True, slots=True)
class Cursor:
    """The rows after the sort key `key`, or before it; if `key` is None, the first rows of the list, or the last."""

    before: bool
    key: tuple[str, ...] | None


def sign(cursor: Cursor, continues: bytes) -> str:
    """Return the cursor as a text that `unsign` accepts only with the same `continues`, which identifies the list."""
    payload = orjson.dumps((cursor.before, cursor.key))
    return _encode(_signature(payload, continues, _keys()[0]) + payload)


def unsign(text: str, continues: bytes) -> Cursor:
    """Return the cursor in a text. Raises Malformed if this service did not make the text for this list.

    Signatures by SECRET_KEY_FALLBACKS are accepted, too, so that a client can read on while the key is replaced.
    """
    refused = Malformed("invalid_cursor", "is not a cursor of this list with this sort and these filters")
    if len(text) > MAX_CHARACTERS:
        raise refused
    try:
        signed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise refused from None
    if _encode(signed) != text:  # base64 has several texts for the same bytes; a cursor has one
        raise refused
    signature, payload = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    if not any(hmac.compare_digest(signature, _signature(payload, continues, key)) for key in _keys()):
        raise refused
    before, key = orjson.loads(payload)
    return Cursor(before, None if key is None else tuple(key))


def _encode(signed: bytes) -> str:
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()


def _signature(payload: bytes, continues: bytes, key: bytes) -> bytes:
    message = continues + b"\0" + payload
    return hashlib.blake2b(message, digest_size=SIGNATURE_BYTES, key=key).digest()


@cache
def _keys() -> tuple[bytes, ...]:
    """The keys of signatures: the first signs, all verify."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return tuple(hashlib.sha256(b"api.reads.cursors" + secret.encode()).digest() for secret in secrets)


# Takes any text, since `unsign` refuses all that is not a cursor.
PARAMETER_TYPE = ParameterType(
    str, str, {"type": "string", "pattern": "^[-A-Za-z0-9_]+$", "maxLength": MAX_CHARACTERS}
)
