"""Cursors: what was signed comes back, and nothing else does."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from api.reads import cursors
from api.reads.cursors import MAX_CHARACTERS, MAX_KEY_CHARACTERS, Cursor, sign, unsign
from api.reads.parameters import Malformed

KEYS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=3).map(tuple)
CURSORS = st.builds(Cursor, st.booleans(), st.none() | KEYS)


def refused(text: str, continues: bytes) -> None:
    with pytest.raises(Malformed) as error:
        unsign(text, continues)
    assert error.value.code == "invalid_cursor"


@given(CURSORS, st.binary())
def test_round_trip(cursor: Cursor, continues: bytes) -> None:
    signed = sign(cursor, continues)
    assert signed.isascii()
    assert signed.replace("-", "").replace("_", "").isalnum()  # needs no escape in a URL
    assert unsign(signed, continues) == cursor


@pytest.mark.parametrize("character", ["\x01", "😀"])
def test_the_longest_key(character: str) -> None:
    """A sort key and a primary key that are texts, of as many characters as the system check allows."""
    cursor = Cursor(before=False, key=(character * MAX_KEY_CHARACTERS,) * 2)
    assert unsign(sign(cursor, b""), b"") == cursor


@given(CURSORS, st.binary(max_size=40), st.data())
def test_any_change_is_refused(cursor: Cursor, continues: bytes, data: st.DataObject) -> None:
    signed = sign(cursor, continues)
    at = data.draw(st.integers(0, len(signed) - 1))
    letter = data.draw(st.sampled_from("AZaz09-_+/=~ \n").filter(lambda letter: letter != signed[at]))
    refused(signed[:at] + letter + signed[at + 1 :], continues)
    refused(signed[:at], continues)
    refused(signed[:at] + letter + signed[at:], continues)


@given(CURSORS, st.binary(max_size=9), st.binary(max_size=9))
def test_bound_to_what_it_continues(cursor: Cursor, mine: bytes, other: bytes) -> None:
    if mine != other:
        refused(sign(cursor, mine), other)


@given(CURSORS, CURSORS)
def test_different_cursors_look_different(one: Cursor, other: Cursor) -> None:
    assert (sign(one, b"") == sign(other, b"")) == (one == other)


@given(st.text())
def test_no_text_makes_another_error(text: str) -> None:
    refused(text, b"")


@contextmanager
def keys(current: str, *fallbacks: str) -> Iterator[None]:
    cursors._keys.cache_clear()
    try:
        with override_settings(SECRET_KEY=current * 50, SECRET_KEY_FALLBACKS=[key * 50 for key in fallbacks]):
            yield
    finally:
        cursors._keys.cache_clear()


def test_another_secret_key_refuses() -> None:
    cursor = Cursor(before=False, key=("1",))
    signed = sign(cursor, b"")
    with keys("a"):
        refused(signed, b"")
    assert unsign(signed, b"") == cursor


def test_a_key_is_replaced_while_lists_are_walked() -> None:
    """The steps of a rotation: a release that signs with the next key only follows one that knows it."""
    cursor = Cursor(before=False, key=("1",))
    with keys("a"):
        old = sign(cursor, b"")
    with keys("a", "b"):
        assert sign(cursor, b"") == old
    with keys("b", "z", "a"):
        assert unsign(old, b"") == cursor
        refused(old, b"another list")
        new = sign(cursor, b"")
        assert new != old
    with keys("a", "b"):
        assert unsign(new, b"") == cursor
    with keys("b"):
        assert unsign(new, b"") == cursor
        refused(old, b"")


@pytest.mark.parametrize("text", ["é", "a" * (MAX_CHARACTERS + 1), "\ud800"])
def test_what_cannot_be_one_is_refused(text: str) -> None:
    refused(text, b"")
