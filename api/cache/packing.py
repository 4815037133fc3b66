"""An entry as the bytes that Redis holds: a checksum, what is known of the answer as JSON, and its body as it is.

Not pickle, which runs what it finds. What is not exactly of this form is no entry.
"""

import struct
import zlib
from typing import Any

import orjson

from api.cache.entry import Entry
from api.cache.policy import Policy

HEAD = struct.Struct("<4sII")  # what it is, checksum of the rest, length of the JSON
MAGIC = b"s10\x01"  # the last byte is the version of this form


class Corrupt(Exception):
    """These bytes were not packed here."""


def pack(entry: Entry) -> bytes:
    known = orjson.dumps(
        {
            "key": entry.key,
            "created": entry.created,
            "cost": entry.cost,
            "versions": {tag: version.decode() for tag, version in (entry.versions or {}).items()},
            "etag": entry.etag.decode(),
            "fields": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in entry.fields],
        }
    )
    return HEAD.pack(MAGIC, _checksum(known, entry.body), len(known)) + known + entry.body


def unpack(data: bytes, policy: Policy, key: str) -> Entry:
    """Raises Corrupt."""
    try:
        magic, checksum, length = HEAD.unpack_from(data)
        known, body = data[HEAD.size : HEAD.size + length], data[HEAD.size + length :]
        if magic != MAGIC or len(known) != length or checksum != _checksum(known, body):
            raise Corrupt
        entry = orjson.loads(known)
        if entry["key"] != key:  # what a client takes for the answer may be that to another question
            raise Corrupt
        return _entry(entry, body, policy, key)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt from error


def _entry(known: dict[str, Any], body: bytes, policy: Policy, key: str) -> Entry:
    return Entry(
        policy,
        key,
        [(name.encode("latin-1"), value.encode("latin-1")) for name, value in known["fields"]],
        body,
        created=float(known["created"]),
        cost=float(known["cost"]),
        versions={tag: version.encode() for tag, version in known["versions"].items()},
        etag=known["etag"].encode(),
    )


def _checksum(known: bytes, body: bytes) -> int:
    """Also of where the one ends and the other begins. Takes 3 us for 16 kB."""
    return zlib.crc32(body, zlib.crc32(known, len(known)))
