"""Entries in Redis: they come back as they were, or not at all."""

import pickle
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cache.entry import Entry
from api.cache.packing import HEAD, MAGIC, Corrupt, checksum, pack, unpack
from tests.api.cache.harness import entry, target

TARGET = target()
POLICY = TARGET.policy
FIELDS = [(b"content-type", b"text/plain"), (b"link", b"</a?b=\xe9>; rel=next"), (b"x-empty", b"")]
names = st.binary(min_size=1, max_size=20)


def known(entry: Entry) -> dict[str, Any]:
    names = ("policy", "key", "fields", "body", "created", "seconds", "versions", "etag")
    return {name: getattr(entry, name) for name in names}


def sample(body: bytes = b"\n some \x00\xff bytes") -> Entry:
    versions = {"shop.product": b"0011", "shop.product:7": b"2233"}
    return entry(body, FIELDS, policy=POLICY, created=time.time() - 5.5, seconds=0.25, versions=versions)


@given(
    body=st.binary(max_size=2000),
    fields=st.lists(st.tuples(names, names), max_size=5),
    versions=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), st.just(b"0a1b")),
)
def test_round_trip(body: bytes, fields: list[tuple[bytes, bytes]], versions: dict[str, bytes]) -> None:
    packed = entry(body, fields, policy=POLICY, versions=versions)
    unpacked = unpack(pack(packed), TARGET)
    assert known(unpacked) == known(packed)
    assert unpacked.fresh_until == pytest.approx(packed.fresh_until, abs=0.5)


def test_the_body_is_as_it_is() -> None:
    assert pack(sample()).endswith(b"\n some \x00\xff bytes")


def test_every_truncation_is_corrupt() -> None:
    data = pack(sample())
    for length in range(len(data)):
        with pytest.raises(Corrupt):
            unpack(data[:length], TARGET)


@pytest.mark.parametrize("body", [b"\n" + b" " * 300 + b"blanks at first", b"", b"{}"])
def test_every_flipped_bit_is_corrupt(body: bytes) -> None:
    data = pack(sample(body))
    for at in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            with pytest.raises(Corrupt):
                unpack(bytes(flipped), TARGET)


@given(st.binary(max_size=200))
def test_other_bytes_are_corrupt(data: bytes) -> None:
    for found in (data, MAGIC + data, pack(sample()) + b"\n" + data):
        with pytest.raises(Corrupt):
            unpack(found, TARGET)


@pytest.mark.parametrize(
    "found", [b"", pickle.dumps({"a": 1}), orjson.dumps({"created": 1}), b"<html>", b"s10\x00" + bytes(8)]
)
def test_what_others_write_is_corrupt(found: bytes) -> None:
    with pytest.raises(Corrupt):
        unpack(found, TARGET)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": "page?limit=5"},  # the answer to another question
        {"created": "then"},
        {"created": None},
        {"created": []},
        {"seconds": None},
        {"versions": None},
        {"versions": []},
        {"versions": {"a": 1}},
        {"etag": 1},
        {"fields": 1},
        {"fields": [["a"]]},
        {"fields": [["a", "\u4e00"]]},
        {"fields": [["a", 1]]},
    ],
)
def test_what_is_known_has_its_types(wrong: dict[str, Any]) -> None:
    right = {"key": "page?", "created": 1.0, "seconds": 0.1, "versions": {}, "etag": "a", "fields": []}
    for values in (right, right | wrong, {n: v for n, v in right.items() if n not in wrong}):
        text = orjson.dumps(values)
        data = HEAD.pack(MAGIC, checksum(text, b"body"), len(text)) + text + b"body"
        if values is right:
            assert unpack(data, TARGET).body == b"body"
        else:
            with pytest.raises(Corrupt):
                unpack(data, TARGET)
