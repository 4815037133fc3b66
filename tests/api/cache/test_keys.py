"""Requests that are equal have one key, however they are written, and unequal ones have different keys.

The meaning of a request is defined here a second time, apart from the code that makes keys of it.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoDbBlocker

from api.cache.layer import _target
from api.reads.cursors import Cursor, sign
from tests.shop.queries import PRODUCTS
from tests.shop.schemas import ProductOut

FIELDS = tuple(ProductOut.model_fields)
DEFAULT_FIELDS = tuple(field for field in FIELDS if field != "category")
PATHS = {
    "time_created": ("created_after", "created_before", "category"),
    "low_price": ("low_price_min", "low_price_max"),
    "high_price": ("high_price_min", "high_price_max"),
    "id": (),
}
EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)

prices = st.integers(0, 300).map(lambda cents: Decimal(cents) / 20)
times = st.integers(0, 200).map(lambda steps: EPOCH + datetime.timedelta(microseconds=250_000 * steps))
values = {
    **dict.fromkeys(["low_price_min", "low_price_max", "high_price_min", "high_price_max"], prices),
    **dict.fromkeys(["created_after", "created_before"], times),
    "category": st.sampled_from(["garden", "Garden", "art-1"]),
}


@dataclass(frozen=True)
class Asked:
    """The meaning of a request for a list."""

    sort: str
    filters: frozenset[tuple[str, Any]] = frozenset()
    limit: int = 100
    fields: frozenset[str] = frozenset(DEFAULT_FIELDS)
    layout: str = "rows"
    cursor: Cursor | None = None


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    path = draw(st.sampled_from([*PATHS]))
    names = draw(st.sets(st.sampled_from(PATHS[path]))) if PATHS[path] else set()
    return Asked(
        draw(st.sampled_from(["", "-"])) + path,
        frozenset((name, draw(values[name])) for name in names),
        draw(st.sampled_from([100, 1, 1000])),
        draw(st.sampled_from([frozenset(DEFAULT_FIELDS), frozenset(FIELDS), frozenset({"id", "category"})])),
        draw(st.sampled_from(["rows", "columns"])),
        draw(st.sampled_from([None, None, Cursor(before=True, key=None), Cursor(before=False, key=None)])),
    )


def spell(asked: Asked, chance: Random) -> str:
    """One of its many spellings."""
    said = [(name, spell_value(value, chance)) for name, value in asked.filters]
    implied = next(path for path, filters in PATHS.items() if {n for n, _ in said} <= {*filters})
    if asked.sort != implied or chance.random() < 0.5:
        said.append(("sort", asked.sort))
    if asked.limit != 100 or chance.random() < 0.5:
        said.append(("limit", str(asked.limit)))
    if asked.layout != "rows" or chance.random() < 0.5:
        said.append(("layout", asked.layout))
    if asked.fields != {*DEFAULT_FIELDS} or chance.random() < 0.5:
        named = chance.sample([*asked.fields], len(asked.fields))
        said.append(("fields", ",".join(named + named[: chance.randrange(2)])))
    if asked.cursor:
        said.append(("cursor", sign(asked.cursor, continues(asked))))
    pairs = [
        f"{encode(name, chance)}={encode(value, chance)}" for name, value in chance.sample(said, len(said))
    ]
    return "&" * chance.randrange(2) + ("&" * chance.randrange(1, 3)).join(pairs) + "&" * chance.randrange(2)


def continues(asked: Asked) -> bytes:
    """The list that a cursor is bound to: any page of it will do."""
    chance = Random(0)  # noqa: S311
    page = PRODUCTS._read(spell(Asked(asked.sort, asked.filters), chance))
    return page.continues


def spell_value(value: Any, chance: Random) -> str:
    if isinstance(value, Decimal):
        texts = [f"{value:.2f}", f"{value.normalize():f}", f"0{value:.2f}", f"{value:.6f}"]
        return chance.choice([text for text in texts if len(text.split(".")[0]) <= 5])
    if isinstance(value, datetime.datetime):
        zone = datetime.timezone(datetime.timedelta(minutes=chance.choice([0, 60, -330, 839])))
        text = value.astimezone(zone).isoformat()
        local, offset = text[:-6], text[-6:]
        if "." in local:
            local = local.rstrip("0") if chance.random() < 0.5 else local + "0" * chance.randrange(4)
        elif chance.random() < 0.5:
            local += "." + "0" * chance.randrange(1, 10)
        text = local + ("Z" if offset == "+00:00" and chance.random() < 0.5 else offset)
        return text.lower() if chance.random() < 0.2 else text
    return str(value)


def encode(text: str, chance: Random) -> str:
    return "".join(
        f"%{ord(char):02{chance.choice('xX')}}" if char in "+&=%#" or chance.random() < 0.1 else char
        for char in text
    )


def key(query: str, path: str = "/api/products") -> str:
    target = _target(path, query.encode())
    assert target, query
    return target.key


@pytest.fixture(scope="module", autouse=True)
def database(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """To compile a query, Django asks for Postgres's version."""
    with django_db_blocker.unblock():
        yield


@pytest.mark.django_db
@given(requests(), st.integers(0, 2**32), st.integers(0, 2**32))
def test_equal_requests_have_one_key(asked: Asked, one: int, other: int) -> None:
    spelled = spell(asked, Random(one)), spell(asked, Random(other))  # noqa: S311
    assert key(spelled[0]) == key(spelled[1]), spelled


@pytest.mark.django_db
@given(st.lists(requests(), min_size=2, max_size=20, unique=True), st.integers(0, 2**32))
def test_unequal_requests_have_different_keys(asked: list[Asked], seed: int) -> None:
    keys = [key(spell(each, Random(seed))) for each in asked]  # noqa: S311
    assert len({*keys}) == len(asked)


@pytest.mark.django_db
@given(st.permutations(FIELDS), st.integers(1, len(FIELDS)), st.integers(1, 2**63 - 1))
def test_one_product(fields: list[str], count: int, product: int) -> None:
    path, chosen = f"/api/products/{product}", fields[:count]
    said = key(f"fields={','.join(chosen)}", path)
    assert said == key(f"&f%69elds={'%2C'.join(sorted(chosen))}", path)
    assert (said == key("", path)) == (count == len(FIELDS))
    assert said != key(f"fields={','.join(chosen)}", f"/api/products/{product % (2**63 - 1) + 1}")


def test_lists_do_not_share_keys() -> None:
    paths = ("/api/products", "/api/categories", "/api/products/1")
    assert len({key("", path) for path in paths}) == len(paths)


@pytest.mark.parametrize(
    "path", ["/api/products/", "/api/products/01", "/api/products/-1", "/api/products/x", "/x"]
)
def test_no_key_of_another_path(path: str) -> None:
    assert _target(path, b"") is None


@pytest.mark.django_db
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="&="), min_size=1, max_size=20),
    st.text(max_size=5),
)
def test_unknown_parameters_reach_no_key(name: str, value: str) -> None:
    if name not in PRODUCTS.parameters:
        assert _target("/api/products", f"{quote(name)}={quote(value)}".encode()) is None
