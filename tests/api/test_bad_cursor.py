"""Cursors that this service did not make for this list are refused, before they cost a statement."""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

LIST = "/api/products"
Refused = Callable[..., Any]


def cursor_of(api: httpx.Client, url: str, link: str = "next") -> str:
    return parse_qs(urlsplit(str(api.get(url).json()[link])).query)["cursor"][0]


def check(problem: Any) -> None:
    assert problem["code"] == "invalid_cursor"
    assert [(e["parameter"], e["code"]) for e in problem["errors"]] == [("cursor", "invalid_cursor")]


def test_every_changed_bit_or_byte(api: httpx.Client, refused: Refused) -> None:
    cursor = cursor_of(api, LIST)
    sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << at % 8
        check(refused(422, f"{LIST}?cursor={base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}"))
    for at, letter in enumerate(cursor):
        check(refused(422, f"{LIST}?cursor={cursor[:at]}{'B' if letter == 'A' else 'A'}{cursor[at + 1 :]}"))


def test_every_truncation(api: httpx.Client, refused: Refused) -> None:
    cursor = cursor_of(api, LIST)
    for length in range(1, len(cursor)):
        check(refused(422, f"{LIST}?cursor={cursor[:length]}"))
        check(refused(422, f"{LIST}?cursor={cursor[length:]}"))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c + "=",
        lambda c: c + "==",
        lambda c: c + "A",
        lambda c: c + "AAAA",
        lambda c: c + "%0A",
        lambda c: c[:8] + "%0A" + c[8:],
        lambda c: c[:8] + "+" + c[8:],
        lambda c: c[:8] + "!" + c[8:],
        lambda c: c.swapcase(),
        lambda c: "e30",
        lambda c: "W2ZhbHNlLFsiMSJdXQ",
    ],
)
def test_other_spellings(api: httpx.Client, refused: Refused, change: Callable[[str], str]) -> None:
    check(refused(422, f"{LIST}?cursor={change(cursor_of(api, LIST))}"))


@pytest.mark.parametrize("value", ["%C3%A9", "A" * 513, "A" * 8_000], ids=["non-ASCII", "513", "8000"])
def test_what_cannot_be_a_cursor(refused: Refused, value: str) -> None:
    check(refused(422, f"{LIST}?cursor={value}"))


def test_another_alphabet(api: httpx.Client, refused: Refused) -> None:
    """The standard alphabet's + and / in place of - and _, in a cursor that has one of them."""
    cursors = (cursor_of(api, f"{LIST}?limit={limit}") for limit in range(1, 200))
    cursor = next(c for c in cursors if set(c) & set("-_"))
    check(refused(422, f"{LIST}?cursor={cursor.replace('-', '%2B').replace('_', '/')}"))


@pytest.mark.parametrize(
    ("made_for", "used_for"),
    [
        (LIST + "?", f"{LIST}?sort=id"),
        (LIST + "?", f"{LIST}?sort=-time_created"),
        (f"{LIST}?sort=-id", f"{LIST}?sort=id"),
        (f"{LIST}?sort=low_price", f"{LIST}?sort=high_price"),
        (LIST + "?", f"{LIST}?category=garden"),
        (f"{LIST}?category=garden", f"{LIST}?category=toys"),
        (f"{LIST}?category=garden", LIST + "?"),
        (f"{LIST}?low_price_min=1", f"{LIST}?low_price_max=1"),
        (f"{LIST}?low_price_min=1", f"{LIST}?low_price_min=2"),
        (f"{LIST}?low_price_min=1", f"{LIST}?sort=low_price"),
        (f"{LIST}?created_after=2020-01-01T00:00:00Z", f"{LIST}?created_after=2020-01-01T00:00:01Z"),
        ("/api/categories?limit=1", f"{LIST}?limit=1"),
        ("/api/categories?limit=1", "/api/categories?sort=-slug"),
    ],
)
def test_the_cursor_of_another_list(
    api: httpx.Client, refused: Refused, made_for: str, used_for: str
) -> None:
    cursor = cursor_of(api, made_for)
    assert api.get(f"{made_for}&cursor={cursor}").status_code == 200
    check(refused(422, f"{used_for}&cursor={cursor}"))


@pytest.mark.parametrize(
    ("made_for", "used_for"),
    [
        (f"{LIST}?limit=1", f"{LIST}?limit=2&fields=id&layout=columns"),
        (LIST + "?", f"{LIST}?sort=time_created"),
        (f"{LIST}?low_price_min=1", f"{LIST}?low_price_min=1&sort=low_price"),
        (
            f"{LIST}?category=garden&created_after=2020-01-01T00:00:00Z",
            f"{LIST}?created_after=2020-01-01T01:00:00%2B01:00&category=garden",
        ),
        (f"{LIST}?low_price_min=1", f"{LIST}?low_price_min=1.00"),
    ],
)
def test_the_same_list_said_differently(api: httpx.Client, made_for: str, used_for: str) -> None:
    assert api.get(f"{used_for}&cursor={cursor_of(api, made_for)}").status_code == 200
