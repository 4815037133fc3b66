"""Which answers count as the same rows."""

import datetime
from typing import Any

import pytest

from ops.tools.lab.verify import compare

ROW = {
    "id": 1,
    "low_price": "233.20",
    "time_created": datetime.datetime(2020, 1, 1, 0, 0, 13, 370000, tzinfo=datetime.UTC),
    "category": None,
}
ANSWER = {"id": 1, "low_price": "233.20", "time_created": "2020-01-01T00:00:13.37+00:00", "category": None}


@pytest.mark.parametrize(
    "time", ["2020-01-01T00:00:13.37+00:00", "2020-01-01T00:00:13.370Z", "2020-01-01T01:00:13.370000+01:00"]
)
def test_an_instant_has_many_spellings(time: str) -> None:
    assert compare([ANSWER | {"time_created": time}], [ROW]) is None


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"low_price": "233.2"}, "row 1: low_price is '233.2', Postgres has '233.20'"),
        ({"low_price": 233.2}, "row 1: low_price is 233.2, Postgres has '233.20'"),
        ({"id": True}, "row 1: id is True, Postgres has 1"),
        ({"category": "toys"}, "row 1: category is 'toys', Postgres has None"),
        ({"time_created": "2020-01-01T00:00:13+00:00"}, "row 1: time_created is"),
        ({"time_created": "2020-01-01T00:00:13.37"}, "row 1: time_created is"),
        ({"time_created": "yesterday"}, "row 1: time_created is"),
        ({"name": "more"}, "row 1 has the fields id, low_price, time_created, category, name"),
    ],
)
def test_the_first_difference_is_named(change: dict[str, Any], difference: str) -> None:
    assert str(compare([ANSWER | change], [ROW])).startswith(difference)


def test_a_row_is_missing() -> None:
    assert compare([], [ROW]) == "0 rows, Postgres has 1"
