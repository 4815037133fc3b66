"""Kinds: each value has its spellings, everything else is refused with a stable code, and spelling undoes reading."""

import datetime
import uuid
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from hypothesis import example, given
from hypothesis import strategies as st

from api.kinds import TIMESTAMP, Kind, Malformed, decimal, integer, kind_of, one_of, text

Char: Any = models.CharField  # generic to the type checker only
KINDS: dict[str, Kind] = {
    "integer": integer(-5, 1000),
    "smallint": kind_of(models.SmallIntegerField()),
    "positive": kind_of(models.PositiveIntegerField()),
    "bigint": kind_of(models.BigAutoField()),
    "price": decimal(7, 2),
    "whole": decimal(3, 0),
    "timestamp": TIMESTAMP,
    "date": kind_of(models.DateField()),
    "boolean": kind_of(models.BooleanField()),
    "uuid": kind_of(models.UUIDField()),
    "text": text(5),
    "word": one_of(["a", "b c"]),
    "choice": kind_of(Char(max_length=9, choices=[("x", "X"), ("group", [("y", "Y")])])),
    "slug": kind_of(models.SlugField(max_length=4)),
}
ID = "6f1d3b3a-5c1e-4f7e-9a57-0d1c8d0e1f2a"
UTC = datetime.UTC


@pytest.mark.parametrize(
    ("kind", "spelling", "value"),
    [
        *(("integer", str(number), number) for number in (-5, 0, 1, 1000)),
        *(("smallint", str(number), number) for number in (-(2**15), 2**15 - 1)),
        ("positive", "0", 0),
        *(("bigint", str(number), number) for number in (-(2**63), 2**63 - 1)),
        *(("price", price, Decimal(price)) for price in ("0", "12", "12.5", "12.50", "-99999.99", "99999.99")),
        ("price", "00012.00", Decimal(12)),
        ("whole", "-999", Decimal(-999)),
        ("timestamp", "2020-01-01T00:00:00Z", datetime.datetime(2020, 1, 1, tzinfo=UTC)),
        ("timestamp", "2020-01-01T01:00:00+01:00", datetime.datetime(2020, 1, 1, tzinfo=UTC)),
        ("timestamp", "2019-12-31T23:30:00.5-00:30", datetime.datetime(2020, 1, 1, 0, 0, 0, 500000, UTC)),
        ("timestamp", "9999-12-31T23:59:59.999999Z", datetime.datetime.max.replace(tzinfo=UTC)),
        ("timestamp", "0001-01-01T00:00:00Z", datetime.datetime.min.replace(tzinfo=UTC)),
        ("date", "2020-02-29", datetime.date(2020, 2, 29)),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("uuid", ID, uuid.UUID(ID)),
        ("text", "a\nb é", "a\nb é"),
        ("text", "🌍🌍🌍🌍🌍", "🌍🌍🌍🌍🌍"),
        ("word", "b c", "b c"),
        ("choice", "y", "y"),
        ("slug", "aB-_", "aB-_"),
    ],
)  # fmt: skip
def test_accepted(kind: str, spelling: str, value: object) -> None:
    parsed = KINDS[kind].parse(spelling)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "code", "spellings"),
    [
        ("integer", "malformed", ["", "-", "-0", "01", "+1", " 1", "1 ", "1\n", "1_0", "1.0", "1e1", "NaN"]),
        ("integer", "malformed", ["\u0663", "\uff11"]),  # digits of other scripts
        ("integer", "out_of_range", ["-6", "1001", str(2**31), str(2**63), "9" * 20, "-" + "9" * 5000]),
        ("smallint", "out_of_range", [str(-(2**15) - 1), str(2**15)]),
        ("positive", "out_of_range", ["-1", str(2**31)]),
        ("bigint", "out_of_range", [str(2**63), str(-(2**63) - 1)]),
        (
            "price",
            "malformed",
            ["", ".5", "5.", "+1", "1e3", "1,5", "NaN", "sNaN", "Infinity", "1 ", "1.5\n"],
        ),
        ("price", "malformed", ["\u0663.\u0663", "0x1", "--1", "1_0"]),
        ("price", "out_of_range", ["100000", "1.001", "-100000.00", "0" * 5 + "1", "1" + "0" * 400]),
        ("whole", "out_of_range", ["1000", "1.0"]),
        ("timestamp", "malformed", ["", "now", "2020-01-01", "2020-01-01T00:00:00", "2020-01-01t00:00:00z"]),
        ("timestamp", "malformed", ["2020-01-01T00:00:00Z\n", "2020-01-01 00:00:00Z", "2020-1-1T00:00:00Z"]),
        ("timestamp", "malformed", ["\u0662020-01-01T00:00:00Z", "1577836800", "infinity"]),
        ("timestamp", "out_of_range", ["2021-02-29T00:00:00Z", "0001-01-01T00:00:00+00:01"]),
        ("timestamp", "out_of_range", ["9999-12-31T23:59:59-00:01", "2020-01-01T00:00:00+99:99"]),
        ("date", "malformed", ["2021-02-29", "20200101", "2020-W01-1", "2020-01-01\n", "\u0662020-01-01"]),
        ("boolean", "malformed", ["True", "1", "yes", "true\n", ""]),
        ("uuid", "malformed", [ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", ID + "\n"]),
        ("text", "malformed", ["", "a" * 6]),
        ("word", "not_a_choice", ["", "A", "b", "a\n"]),
        ("choice", "not_a_choice", ["group", "X"]),
        ("slug", "malformed", ["", "abcde", "\xe9", "a.b", "a b", "ab\n"]),
    ],
)
def test_refused(kind: str, code: str, spellings: list[str]) -> None:
    for spelling in spellings:
        with pytest.raises(Malformed) as refused:
            KINDS[kind].parse(spelling)
        assert refused.value.code == code, spelling
        assert str(refused.value).startswith("must be")


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-5, 1000),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "positive": st.integers(0, 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "price": st.decimals("-99999.99", "99999.99", places=2),
    "whole": st.decimals(-999, 999, places=0),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "date": st.dates(),
    "boolean": st.booleans(),
    "uuid": st.uuids(),
    "text": st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    "word": st.sampled_from(["a", "b c"]),
    "choice": st.sampled_from(["x", "y"]),
    "slug": st.from_regex(r"[-a-zA-Z0-9_]{1,4}", fullmatch=True),
}


def test_every_kind_has_values() -> None:
    assert VALUES.keys() == KINDS.keys()


@given(st.one_of([st.tuples(st.just(kind), values) for kind, values in VALUES.items()]))
@example(("timestamp", datetime.datetime.min.replace(tzinfo=UTC)))
@example(("price", Decimal("-0.00")))
def test_spelling_undoes_reading(known: tuple[str, Any]) -> None:
    name, value = known
    kind = KINDS[name]
    spelled = kind.spell(value)
    assert kind.parse(spelled) == value
    assert kind.spell(kind.parse(spelled)) == spelled


@given(st.sampled_from(sorted(KINDS)), st.text())
def test_any_text_is_read_or_refused(kind: str, spelling: str) -> None:
    try:
        value = KINDS[kind].parse(spelling)
    except Malformed:
        return
    assert KINDS[kind].parse(KINDS[kind].spell(value)) == value


def test_a_field_without_a_textual_form() -> None:
    with pytest.raises(ImproperlyConfigured, match="BinaryField"):
        kind_of(models.BinaryField())
