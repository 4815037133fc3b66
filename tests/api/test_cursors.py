"""Cursors: what was sealed comes back, and nothing else does."""

import pytest
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from api import cursors
from api.cursors import MOST_CHARACTERS, Cursor, seal, unseal
from api.kinds import Malformed

KEYS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=1, max_size=3).map(tuple)
CURSORS = st.builds(Cursor, st.booleans(), st.none() | KEYS)


def refused(text: str, continues: bytes) -> None:
    with pytest.raises(Malformed) as error:
        unseal(text, continues)
    assert error.value.code == "invalid_cursor"


@given(CURSORS, st.binary())
def test_round_trip(cursor: Cursor, continues: bytes) -> None:
    sealed = seal(cursor, continues)
    assert sealed.isascii()
    assert sealed.replace("-", "").replace("_", "").isalnum()  # needs no escape in a URL
    assert unseal(sealed, continues) == cursor


@given(CURSORS, st.binary(max_size=40), st.data())
def test_any_change_is_refused(cursor: Cursor, continues: bytes, data: st.DataObject) -> None:
    sealed = seal(cursor, continues)
    at = data.draw(st.integers(0, len(sealed) - 1))
    letter = data.draw(st.sampled_from("AZaz09-_+/=~ \n").filter(lambda letter: letter != sealed[at]))
    refused(sealed[:at] + letter + sealed[at + 1 :], continues)
    refused(sealed[:at], continues)
    refused(sealed[:at] + letter + sealed[at:], continues)


@given(CURSORS, st.binary(max_size=9), st.binary(max_size=9))
def test_bound_to_what_it_continues(cursor: Cursor, mine: bytes, other: bytes) -> None:
    if mine != other:
        refused(seal(cursor, mine), other)


@given(CURSORS, CURSORS)
def test_different_cursors_look_different(one: Cursor, other: Cursor) -> None:
    assert (seal(one, b"") == seal(other, b"")) == (one == other)


@given(st.text())
def test_no_text_makes_another_error(text: str) -> None:
    refused(text, b"")


def test_another_secret_key_refuses() -> None:
    cursor = Cursor(before=False, key=("1",))
    sealed = seal(cursor, b"")
    cursors._key.cache_clear()
    try:
        with override_settings(SECRET_KEY="another-key" * 5):
            refused(sealed, b"")
    finally:
        cursors._key.cache_clear()
    assert unseal(sealed, b"") == cursor


@pytest.mark.parametrize("text", ["é", "a" * (MOST_CHARACTERS + 1), "\ud800"])
def test_what_cannot_be_one_is_refused(text: str) -> None:
    refused(text, b"")
