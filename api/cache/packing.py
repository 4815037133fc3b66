"""An entry as the bytes that Redis holds: a checksum, the metadata as JSON, and the body as it is.

The form is not pickle, which executes its input. Bytes that do not have exactly this form are no entry.
"""

import struct
import zlib

import orjson

from api.cache.entry import Entry
from api.cache.policy import Target

HEAD = struct.Struct("<4sII")  # magic, checksum of the rest, length of the JSON
MAGIC = b"s10\x03"  # the last byte is the version of this form


class Corrupt(Exception):
    """These bytes are not the entry that was asked for."""


def pack(entry: Entry) -> bytes:
    metadata = orjson.dumps(
        {
            "key": entry.key,
            "created": entry.created,
            "seconds": entry.seconds,
            "versions": {tag: version.decode() for tag, version in (entry.versions or {}).items()},
            "etag": entry.etag.decode(),
            "fields": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in entry.fields],
        }
    )
    return HEAD.pack(MAGIC, checksum(metadata, entry.body), len(metadata)) + metadata + entry.body


def unpack(data: bytes, target: Target) -> Entry:
    """Return the entry in these bytes. Raises Corrupt if there is none, or if it is not the target's."""
    try:
        magic, expected, length = HEAD.unpack_from(data)
        metadata, body = data[HEAD.size : HEAD.size + length], data[HEAD.size + length :]
        if magic != MAGIC or len(metadata) != length or expected != checksum(metadata, body):
            raise Corrupt
        details = orjson.loads(metadata)
        if details["key"] != target.key:  # another request's answer
            raise Corrupt
        return Entry(
            target,
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in details["fields"]],
            body,
            created=float(details["created"]),
            seconds=float(details["seconds"]),
            versions={tag: version.encode() for tag, version in details["versions"].items()},
            etag=details["etag"].encode(),
        )
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt from error


def checksum(metadata: bytes, body: bytes) -> int:
    """Return the CRC-32 of both, which depends on the length of the metadata, too. It takes 3 us for 16 kB."""
    return zlib.crc32(body, zlib.crc32(metadata, len(metadata)))
