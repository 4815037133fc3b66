"""Query strings: what is read, and how each thing wrong with one is named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.problems import Problem
from api.reads.parameters import MAX_FAULTS, integer, read, text

TYPES = {"n": integer(0, 9), "t": text(20)}


def faults(query: str) -> list[tuple[str, str]]:
    with pytest.raises(Problem) as refused:
        read(query, TYPES)
    details = refused.value
    assert (details.status, details.code) == (422, "invalid_parameter")
    return [(fault.parameter, fault.code) for fault in details.errors or ()]


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {}),
        ("&&", {}),
        ("n=1", {"n": 1}),
        ("&n=1&&t=a&", {"n": 1, "t": "a"}),
        ("t=a+b%20c%2B", {"t": "a b c+"}),
        ("t=%F0%9F%8C%8D=1?", {"t": "🌍=1?"}),
        ("%74=%41", {"t": "A"}),
        ("t=%zz%", {"t": "%zz%"}),
        ("t=é", {"t": "é"}),
    ],
)
def test_read(query: str, values: dict[str, Any]) -> None:
    assert read(query, TYPES) == values


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("n", [("n", "empty")]),
        ("n=", [("n", "empty")]),
        ("=1", [("", "unknown")]),
        ("n=1&n=1", [("n", "repeated")]),
        ("n=x&n=1", [("n", "malformed"), ("n", "repeated")]),
        ("N=1&m=1", [("N", "unknown"), ("m", "unknown")]),
        ("n=12", [("n", "out_of_range")]),
        ("t=%FF", [("t", "encoding")]),
        ("t=%ED%A0%80", [("t", "encoding")]),
        ("t=%00", [("t", "encoding")]),
        ("%FF=1", [("%FF", "encoding")]),
        ("t%00=1", [("t%00", "encoding")]),
        ("t=+&n=+1", [("n", "malformed")]),
        ("x" * 60 + "=1", [("x" * 50, "unknown")]),
    ],
)
def test_faults(query: str, expected: list[tuple[str, str]]) -> None:
    assert faults(query) == expected


def test_few_of_thousands_are_named() -> None:
    assert len(faults("&".join(["x=1"] * 5000))) == MAX_FAULTS


@given(st.text(st.characters(codec="utf-8")))
def test_no_query_makes_another_error(query: str) -> None:
    try:
        values = read(query, TYPES)
    except Problem as problem:
        values = {}
        problem.response()
    assert values.keys() <= TYPES.keys()
