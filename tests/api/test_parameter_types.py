"""Parameter types: the texts of each value, a stable code for any other text, and formatting undoes parsing."""

import datetime
import uuid
from decimal import Context, Decimal
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from hypothesis import example, given
from hypothesis import strategies as st

from api.reads.parameters import TIMESTAMP, Malformed, ParameterType, decimal, integer, one_of, text, type_of

Char: Any = models.CharField  # generic to the type checker only
TYPES: dict[str, ParameterType] = {
    "integer": integer(-5, 1000),
    "smallint": type_of(models.SmallIntegerField()),
    "positive": type_of(models.PositiveIntegerField()),
    "bigint": type_of(models.BigAutoField()),
    "price": decimal(7, 2),
    "whole": decimal(3, 0),
    "share": decimal(4, 4),
    "fine": decimal(60, 40),
    "timestamp": TIMESTAMP,
    "date": type_of(models.DateField()),
    "boolean": type_of(models.BooleanField()),
    "uuid": type_of(models.UUIDField()),
    "text": text(5),
    "word": one_of(["a", "b c"]),
    "choice": type_of(Char(max_length=9, choices=[("x", "X"), ("group", [("y", "Y")])])),
    "slug": type_of(models.SlugField(max_length=4)),
    "any slug": type_of(models.SlugField(max_length=5, allow_unicode=True)),
}
ID = "6f1d3b3a-5c1e-4f7e-9a57-0d1c8d0e1f2a"
UTC = datetime.UTC


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        *(("integer", str(number), number) for number in (-5, 0, 1, 1000)),
        *(("smallint", str(number), number) for number in (-(2**15), 2**15 - 1)),
        ("positive", "0", 0),
        *(("bigint", str(number), number) for number in (-(2**63), 2**63 - 1)),
        *(("price", price, Decimal(price)) for price in ("0", "12", "12.5", "12.50", "-99999.99", "99999.99")),
        ("price", "00012.00", Decimal(12)),
        ("price", "12.500000", Decimal("12.5")),
        ("whole", "-999", Decimal(-999)),
        ("timestamp", "2020-01-01T00:00:00Z", datetime.datetime(2020, 1, 1, tzinfo=UTC)),
        ("timestamp", "2020-01-01T01:00:00+01:00", datetime.datetime(2020, 1, 1, tzinfo=UTC)),
        ("timestamp", "2019-12-31T23:30:00.5-00:30", datetime.datetime(2020, 1, 1, 0, 0, 0, 500000, UTC)),
        ("timestamp", "9999-12-31T23:59:59.999999Z", datetime.datetime.max.replace(tzinfo=UTC)),
        ("timestamp", "0001-01-01T00:00:00Z", datetime.datetime.min.replace(tzinfo=UTC)),
        *(  # what .NET, Go, Java and JavaScript print, and the other texts of RFC 3339
            ("timestamp", f"2020-01-01{written}", datetime.datetime(2020, 1, 1, tzinfo=UTC))
            for written in (
                "T00:00:00.0000000Z", "T00:00:00.0000000+00:00", "T00:00:00.000Z", "T00:00:00-00:00",
                "t00:00:00z", "T00:00:00.000000000+00:00", f"T00:00:00.{'0' * 100}Z", "T23:59:00+23:59",
            )
        ),
        ("timestamp", "2020-01-01t00:00:00.123456789z", datetime.datetime(2020, 1, 1, 0, 0, 0, 123456, UTC)),
        ("timestamp", "2020-01-01T00:00:00.9999999Z", datetime.datetime(2020, 1, 1, 0, 0, 0, 999999, UTC)),
        ("timestamp", "2016-12-31T23:59:60Z", datetime.datetime(2017, 1, 1, tzinfo=UTC)),
        ("timestamp", "2017-01-01T00:59:60.5+01:00", datetime.datetime(2017, 1, 1, 0, 0, 0, 500000, UTC)),
        ("date", "2020-02-29", datetime.date(2020, 2, 29)),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("uuid", ID, uuid.UUID(ID)),
        ("uuid", ID.upper(), uuid.UUID(ID)),
        ("text", "a\nb é", "a\nb é"),
        ("text", "🌍🌍🌍🌍🌍", "🌍🌍🌍🌍🌍"),
        ("word", "b c", "b c"),
        ("choice", "y", "y"),
        ("slug", "aB-_", "aB-_"),
        ("any slug", "größe", "größe"),
    ],
)  # fmt: skip
def test_accepted(name: str, written: str, value: object) -> None:
    parsed = TYPES[name].parse(written)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "code", "texts"),
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
        (
            "price",
            "out_of_range",
            ["100000", "1.001", "1.0010", "-100000.00", "0" * 5 + "1", "1" + "0" * 400],
        ),
        ("whole", "out_of_range", ["1000", "1.0"]),
        ("timestamp", "malformed", ["", "now", "2020-01-01", "2020-01-01T00:00:00", "2020-01-01T00:00:00.Z"]),
        ("timestamp", "malformed", ["2020-01-01T00:00:00Z\n", "2020-01-01 00:00:00Z", "2020-1-1T00:00:00Z"]),
        ("timestamp", "malformed", ["\u0662020-01-01T00:00:00Z", "1577836800", "infinity"]),
        ("timestamp", "malformed", ["2020-01-01T00:00:00,5Z", "2020-01-01T00:00:00 00:00"]),
        ("timestamp", "out_of_range", ["2020-01-01T24:00:00Z", "2020-01-01T00:00:00+01:60"]),
        (
            "timestamp",
            "out_of_range",
            ["2020-01-01T00:00:60Z", "2020-01-15T23:59:60Z", "2017-01-01T00:59:60Z"],
        ),
        ("timestamp", "out_of_range", ["9999-12-31T23:59:60Z", "2020-01-01T00:00:61Z"]),
        ("timestamp", "out_of_range", ["2021-02-29T00:00:00Z", "0001-01-01T00:00:00+00:01"]),
        ("timestamp", "out_of_range", ["9999-12-31T23:59:59-00:01", "2020-01-01T00:00:00+99:99"]),
        ("date", "malformed", ["2021-02-29", "20200101", "2020-W01-1", "2020-01-01\n", "\u0662020-01-01"]),
        ("boolean", "malformed", ["True", "1", "yes", "true\n", ""]),
        ("uuid", "malformed", [ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", ID + "\n"]),
        ("text", "malformed", ["", "a" * 6]),
        ("word", "not_a_choice", ["", "A", "b", "a\n"]),
        ("choice", "not_a_choice", ["group", "X"]),
        ("slug", "malformed", ["", "abcde", "\xe9", "a.b", "a b", "ab\n"]),
        ("any slug", "malformed", ["", "größen", "ö.b", "a b", "ab\n"]),
    ],
)
def test_refused(name: str, code: str, texts: list[str]) -> None:
    for written in texts:
        with pytest.raises(Malformed) as refused:
            TYPES[name].parse(written)
        assert refused.value.code == code, written
        assert str(refused.value).startswith("must be")


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-5, 1000),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "positive": st.integers(0, 2**31 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "price": st.decimals("-99999.99", "99999.99", places=2),
    "whole": st.decimals(-999, 999, places=0),
    "share": st.decimals("-0.9999", "0.9999", places=4),
    "fine": st.integers(-(10**60) + 1, 10**60 - 1).map(lambda n: Decimal(n).scaleb(-40, Context(prec=60))),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "date": st.dates(),
    "boolean": st.booleans(),
    "uuid": st.uuids(),
    "text": st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    "word": st.sampled_from(["a", "b c"]),
    "choice": st.sampled_from(["x", "y"]),
    "slug": st.from_regex(r"[-a-zA-Z0-9_]{1,4}", fullmatch=True),
    "any slug": st.from_regex(r"[-\w]{1,5}", fullmatch=True),
}


def test_every_type_has_values() -> None:
    assert VALUES.keys() == TYPES.keys()


@given(st.one_of([st.tuples(st.just(name), values) for name, values in VALUES.items()]))
@example(("timestamp", datetime.datetime.min.replace(tzinfo=UTC)))
@example(("price", Decimal("-0.00")))
def test_formatting_undoes_parsing(known: tuple[str, Any]) -> None:
    name, value = known
    parameter = TYPES[name]
    canonical = parameter.format(value)
    assert parameter.parse(canonical) == value
    assert parameter.format(parameter.parse(canonical)) == canonical


@given(st.sampled_from(sorted(TYPES)), st.text())
def test_any_text_is_read_or_refused(name: str, written: str) -> None:
    try:
        value = TYPES[name].parse(written)
    except Malformed:
        return
    assert TYPES[name].parse(TYPES[name].format(value)) == value


def test_a_field_without_a_textual_form() -> None:
    with pytest.raises(ImproperlyConfigured, match="BinaryField"):
        type_of(models.BinaryField())


@pytest.mark.parametrize("digits", [(7, 2), (5, 1), (9, 0), (3, 0), (3, 2), (4, 4), (2, 2), (1, 1), (60, 40)])
def test_the_example_of_a_decimal_is_one(digits: tuple[int, int]) -> None:
    known = decimal(*digits)
    (example,) = known.schema["examples"]
    assert known.format(known.parse(example)) == example


def test_choices_that_no_parameter_names() -> None:
    """NULL, and the empty text, which a parameter never is."""
    field = Char(max_length=9, null=True, choices=[(None, "-"), ("", "blank"), ("a", "A")])
    assert type_of(field).schema["enum"] == ["a"]
