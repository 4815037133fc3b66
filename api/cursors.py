"""Cursors: where a page begins, opaque and signed.

A cursor holds the sort key of the row next to the page and the direction to read. It is signed together with what
it continues (resource, sort and filters), so it neither leaks into another list nor can be made up.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from functools import cache

import orjson
from django.conf import settings

from api.kinds import Kind, Malformed

SIGNATURE_BYTES = 16  # of keyed BLAKE2b (RFC 7693), which takes 0.4 us where hmac.digest takes 1.3 to 3.5
MOST_CHARACTERS = 2560  # fits a key of MOST_KEY_TEXT characters in base64, each of them six bytes in JSON
MOST_KEY_TEXT = 255  # characters of a text sort key; the system check api.E004 refuses longer ones


@dataclass(frozen=True, slots=True)
class Cursor:
    """The rows after `key`, or before it. Without a key: from that direction's outermost row."""

    before: bool
    key: tuple[str, ...] | None


def seal(cursor: Cursor, continues: bytes) -> str:
    """The cursor as text that only `unseal` with the same `continues` accepts."""
    payload = orjson.dumps((cursor.before, cursor.key))
    return _encode(_signature(payload, continues) + payload)


def unseal(text: str, continues: bytes) -> Cursor:
    """Raises Malformed for a text that this service did not make for this list."""
    sealed = _decode(text)
    signature, payload = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(payload, continues)):
        raise _refused()
    before, key = orjson.loads(payload)
    return Cursor(before, None if key is None else tuple(key))


def _encode(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if len(text) > MOST_CHARACTERS:
        raise _refused()
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise _refused() from None
    if _encode(sealed) != text:  # base64 has several spellings of the same bytes; a cursor has one
        raise _refused()
    return sealed


def _refused() -> Malformed:
    return Malformed("invalid_cursor", "is not a cursor of this list with this sort and these filters")


def _signature(payload: bytes, continues: bytes) -> bytes:
    message = continues + b"\0" + payload
    return hashlib.blake2b(message, digest_size=SIGNATURE_BYTES, key=_key()).digest()


@cache
def _key() -> bytes:
    return hashlib.sha256(b"api.cursors" + settings.SECRET_KEY.encode()).digest()


# Any text: `unseal` says what is a cursor.
KIND = Kind(str, str, {"type": "string", "maxLength": MOST_CHARACTERS})
