"""The coding that serves a client best, and bodies in it."""

import gzip
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from api.cache.encodings import CODERS, IDENTITY, MAX_FIELD_BYTES, choose

DECODERS = {"gzip": gzip.decompress, "zstd": zstandard.ZstdDecompressor().decompress}
weights = st.sampled_from(
    ["", ";q=1", ";q=0.5", "; Q=0.001", ";q=0", ";q=0.0", ";q=1.001", ";q=x", ";r=1", ";"]
)
codings = st.sampled_from([*CODERS, "identity", "*", "br", "GZIP", ""])


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        # RFC 9110, section 12.5.3: its own examples
        ("compress, gzip", "gzip"),
        ("", "identity"),
        ("*", "zstd"),
        ("compress;q=0.5, gzip;q=1.0", "gzip"),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", "gzip"),
        # by weight, then the smaller
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1, zstd;q=0.9", "gzip"),
        ("gzip;q=0.1, zstd;q=0.1", "zstd"),
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=0, *", "zstd"),
        ("zstd;q=0, *;q=0.1", "gzip"),
        ("*;q=0.1, gzip;q=0.2", "gzip"),
        # identity
        ("identity", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0", "identity"),  # nothing else is left; 406 would not help
        ("*;q=0", "identity"),
        ("identity;q=0, *", "zstd"),
        ("deflate, br", "identity"),
        # spelling
        (" GZIP ;Q=1.0 ,\tbr", "gzip"),
        (",,gzip,,", "gzip"),
        ("gzip;q=", "identity"),
        ("gzip;q=2", "identity"),
        ("gzip;q=-1", "identity"),
        ("gzip;q=nan", "identity"),
        ("gzip;q=inf", "identity"),
        ("gzip;level=9", "identity"),
        ("gzipped", "identity"),
        ("\xff;q=1, gzip", "gzip"),
        (";;;,===,q", "identity"),
        ("gzip," + "x" * MAX_FIELD_BYTES, "identity"),
    ],
)
def test_choose(accepted: str, chosen: str) -> None:
    assert choose(accepted.encode("latin-1")) == chosen


@given(st.binary(max_size=300))
def test_anything_gets_an_answer(accepted: bytes) -> None:
    assert choose(accepted) in {IDENTITY, *CODERS}


@given(st.lists(st.tuples(codings, weights), max_size=6))
def test_nothing_that_was_refused(parts: list[tuple[str, str]]) -> None:
    accepted = ", ".join(coding + weight for coding, weight in parts)
    said = {coding.lower(): weight for coding, weight in parts}  # the last word counts
    chosen = choose(accepted.encode())
    if chosen != IDENTITY:
        weight = said.get(chosen, said.get("*", ";q=0"))
        assert weight in {"", ";", ";q=1", ";q=0.5", "; Q=0.001"}


@given(body=st.binary(max_size=5000))
@pytest.mark.parametrize("coding", CODERS)
def test_bodies_come_back(coding: str, body: bytes) -> None:
    decode: Any = DECODERS[coding]
    assert decode(CODERS[coding](body)) == body


@pytest.mark.parametrize("coding", CODERS)
def test_the_same_body_gives_the_same_bytes(coding: str) -> None:
    """Or one strong entity tag would stand for several representations: each worker codes for itself."""
    body = b'{"id": 1}' * 1000
    assert CODERS[coding](body) == CODERS[coding](body)
