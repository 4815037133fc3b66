"""Any page of any list, against a plain model of what the parameters mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import ROWS
from tests.service import Service
from tests.spare import Database

LIST = "/api/products"
FIELDS = (
    *("id", "low_price", "high_price", "demand_qty", "offers_qty", "bought_qty", "sold_qty"),
    *("time_created", "category"),
)
CATEGORIES = ["garden", "toys", "art", "none"]
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
FILTERS: dict[str, dict[str, Any]] = {
    "time_created": {
        "created_after": lambda row, value: row["time_created"] >= value,
        "created_before": lambda row, value: row["time_created"] < value,
        "category": lambda row, value: row["category"] == value,
    },
    **{
        price: {
            f"{price}_min": lambda row, value, price=price: row[price] >= value,
            f"{price}_max": lambda row, value, price=price: row[price] <= value,
        }
        for price in ("low_price", "high_price")
    },
    "id": {},
}

times = st.builds(
    lambda minutes, microseconds, hours: (
        BEGINNING + timedelta(minutes=minutes, microseconds=microseconds)
    ).astimezone(timezone(timedelta(hours=hours))),
    st.integers(-5, ROWS * 1337 // 6000 + 5),
    st.sampled_from([0, 0, 1, -1]),
    st.integers(-12, 14),
)
prices = st.decimals(-1, 1001, places=2)


@dataclass(frozen=True)
class Question:
    path: str
    descending: bool
    explicit: bool
    filters: dict[str, Any]
    options: dict[str, Any]
    steps: Sequence[str]

    @property
    def sort(self) -> dict[str, str]:
        return {"sort": "-" * self.descending + self.path} if self.explicit or self.descending else {}

    @property
    def url(self) -> str:
        spelled = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in self.filters.items()
        }
        return f"{LIST}?{urlencode(spelled | self.sort | self.options)}"


@st.composite
def questions(draw: st.DrawFn) -> Question:
    path = draw(st.sampled_from(sorted(FILTERS)))
    values = {
        name: st.sampled_from(CATEGORIES)
        if name == "category"
        else times
        if path == "time_created"
        else prices
        for name in FILTERS[path]
    }
    filters = draw(st.fixed_dictionaries({}, optional=values))
    options = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "limit": st.one_of(st.integers(1, 7), st.integers(90, 110), st.sampled_from([999, 1000])),
                "fields": st.lists(st.sampled_from(FIELDS), min_size=1, unique=True).map(",".join),
                "layout": st.sampled_from(["rows", "columns"]),
            },
        )
    )
    implied = path == "time_created" or filters
    steps = ["next"] * draw(st.integers(0, 4)) + ["previous"] * draw(st.integers(0, 5))
    return Question(path, draw(st.booleans()), not implied or draw(st.booleans()), filters, options, steps)


def matching(rows: list[dict[str, Any]], question: Question) -> list[dict[str, Any]]:
    wanted = [(FILTERS[question.path][name], value) for name, value in question.filters.items()]
    found = [row for row in rows if all(holds(row, value) for holds, value in wanted)]
    return sorted(found, key=lambda row: (row[question.path], row["id"]), reverse=question.descending)


def spelled(rows: list[dict[str, Any]], question: Question) -> Any:
    asked = question.options.get("fields", ",".join(FIELDS[:-1])).split(",")
    results = [{field: as_json(row[field]) for field in FIELDS if field in asked} for row in rows]
    if question.options.get("layout") == "columns":
        return {field: [row[field] for row in results] for field in FIELDS if field in asked}
    return results


def as_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return str(value) if isinstance(value, Decimal) else value


@pytest.fixture(scope="module")
def rows(django_db_setup: None) -> list[dict[str, Any]]:
    with Database(str(django_settings.DATABASES["default"]["NAME"])).connect() as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute(
            "SELECT product.*, slug AS category FROM shop_product AS product"
            " LEFT JOIN shop_category AS category ON category_id = category.id"
        ).fetchall()


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(question=questions())
def test_pages_equal_the_model(service: Service, rows: list[dict[str, Any]], question: Question) -> None:
    expected = matching(rows, question)
    limit = question.options.get("limit", 100)
    start, end = 0, min(limit, len(expected))
    page = service.client.get(question.url).json()
    for step in (*question.steps, None):
        assert page.get("results") == spelled(expected[start:end], question)
        assert (page["previous"] is None, page["next"] is None) == (start == 0, end == len(expected))
        if step is None or page[step] is None:
            return
        start, end = (end, end + limit) if step == "next" else (max(0, start - limit), start)
        end = min(end, len(expected))
        page = service.client.get(page[step]).json()
