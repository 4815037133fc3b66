"""Compiled aggregates against the ORM's own, printed by the schema."""

import asyncio
import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import orjson
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Avg, Count, F, Max, Min, Q, QuerySet, StdDev, Sum, Window
from django.db.models.functions import RowNumber
from ninja import Schema
from pydantic import Field, PlainSerializer, create_model

from api.reads.fields import Timestamp, rounded
from ops.postgres.aggregates import Groups, Total
from ops.postgres.statement import Param
from tests.ops.postgres.conftest import Run
from tests.ops.postgres.models import Everything, Label
from tests.shop.models import Product

pytestmark = pytest.mark.django_db

AGGREGATES: dict[str, Any] = {
    "rows": Count("*"),
    "different_labels": Count("label", distinct=True),
    "cheap": Count("pk", filter=Q(price__lt=Decimal("1.5"))),
    "text_least": Min("text"),
    "small_sum": Sum("small"),
    "big_sum": Sum("big"),
    "big_most": Max("big"),
    "integer_sum": Sum("integer", filter=~Q(text="100% it's")),
    "integer_sum_or_0": Sum("integer", default=0),
    "integer_average": Avg("integer"),
    "price_least": Min("price"),
    "price_most": Max("price", filter=Q(pk__in=[])),
    "price_sum": Sum("price"),
    "price_sum_or_0": Sum("price", default=Decimal(0)),
    "price_average": Avg("price"),
    "price_average_as_float": Avg("price"),
    "price_average_of_different": Avg("price", distinct=True),
    "finer_sum": Sum("finer"),
    "finer_average": Avg("finer"),
    "float_least": Min("float"),
    "float_sum": Sum("float"),
    "float_average": Avg("float"),
    "moment_least": Min("moment"),
    "date_most": Max("date"),
    "time_most": Max("time"),
    "doubled_sum": Sum("doubled"),
    "label_rank_sum": Sum("label__rank"),
    "label_most": Max("label"),
}
Price = Annotated[Decimal, rounded(2)]
Plain = Annotated[Decimal, PlainSerializer(lambda value: f"{value:f}", return_type=str)]
TYPES: dict[str, Any] = {
    **dict.fromkeys(["rows", "different_labels", "cheap", "integer_sum_or_0"], int),
    **dict.fromkeys(["small_sum", "big_sum", "big_most", "integer_sum", "label_rank_sum"], int | None),
    **dict.fromkeys(["integer_average", "price_average_as_float", "float_least", "float_sum"], float | None),
    "price_sum_or_0": Decimal,
    **dict.fromkeys(["price_average", "price_average_of_different"], Price | None),
    **dict.fromkeys(["price_least", "price_most", "price_sum", "doubled_sum"], Decimal | None),
    "finer_sum": Plain | None,
    "finer_average": Annotated[Decimal | None, PlainSerializer(lambda x: None if x is None else float(x))],
    "float_average": float | None,
    "moment_least": Timestamp | None,
    "date_most": datetime.date | None,
    "time_most": datetime.time | None,
    "text_least": str | None,
    "label_most": str | None,
}
FIELDS: dict[str, Any] = {name: (TYPES[name], ...) for name in AGGREGATES}
KEY: dict[str, Any] = {"label": (Annotated[str | None, Field(alias="label.key")], ...)}
Out = create_model("Out", __base__=Schema, **FIELDS)
GroupOut = create_model("GroupOut", __base__=Out, **KEY)
ROWS: "QuerySet[Any]" = Everything.objects.all()
MOMENT = datetime.datetime(1970, 1, 1, 0, 0, 0, 10, datetime.UTC)


def by_label(rows: "QuerySet[Any]") -> Any:
    return rows.values("label__key").annotate(**AGGREGATES).order_by("label__key")


def printed(values: dict[str, Any]) -> Any:
    schema = GroupOut if "label__key" in values else Out
    key = {"label.key": values.pop("label__key")} if "label__key" in values else {}
    return orjson.loads(schema(**values, **key).model_dump_json())


def check(run: Run, rows: "QuerySet[Any]") -> None:
    (total,) = run(Total(rows, Out, **AGGREGATES).statement)
    assert orjson.loads(total or b"") == printed(rows.aggregate(**AGGREGATES))
    groups, *_ = run(Groups(by_label(rows), GroupOut, limit=10).statement)
    found = orjson.loads(b"[%b]" % (groups or b""))
    assert found == [printed(dict(group)) for group in by_label(rows)]


def test_of_no_rows(run: Run) -> None:
    check(run, ROWS)
    check(run, ROWS.filter(label=None))


def test_of_nulls(run: Run) -> None:
    Everything.objects.create()
    Everything.objects.create(label=Label.objects.create(key='"\\\n', rank=1))
    check(run, ROWS)


def test_of_large_small_and_negative_values(run: Run) -> None:
    a, b = (Label.objects.create(key=key, rank=rank) for rank, key in enumerate(["a", "b"], -(2**31)))
    least, most = -(2**63), 2**63 - 1
    finest = Decimal("0.00000000000000000001")
    values: list[dict[str, Any]] = [
        {"big": most, "integer": 2**31 - 1, "price": "99999.99", "float": 1e150, "label": a},
        {"big": most, "integer": 2**31 - 1, "price": "0.01", "float": -1e-7, "label": b, "text": "100% it's"},
        {"big": most, "integer": 2, "price": "-0.02", "finer": finest, "text": '"\x01\u2028😀'},
        {"big": least, "integer": -1, "price": "0.01", "finer": -finest, "moment": MOMENT, "label": b},
        {"big": least, "price": "0.00", "moment": MOMENT.replace(year=2020), "date": MOMENT, "label": a},
        {"price": "0", "float": float("nan"), "time": datetime.time(1, 2, 3, 400000)},
    ]
    for count, each in enumerate(values, 1):
        Everything.objects.create(**each | {"price": Decimal(each["price"])})
        check(run, ROWS)
        check(run, ROWS.filter(big__gt=0))
        assert ROWS.count() == count


@pytest.mark.parametrize("places", range(6))
def test_averages_are_rounded_half_away_from_zero(run: Run, places: int) -> None:
    schema: Any = create_model("Schema", __base__=Schema, x=(Annotated[Decimal, rounded(places)] | None, ...))
    total = Total(ROWS, schema, x=Avg("fine"))
    for value in ("0.5", "-0.5", "0.25", "-0.25", "0.05", "0.125", "-0.0005", "0", "2.5", "1e33", "0.000001"):
        ROWS.delete()
        for part in (Decimal(value), Decimal(value) * 2, Decimal(0)):
            Everything.objects.create(fine=part)
        (text,) = run(total.statement)
        expected = schema(**ROWS.aggregate(x=Avg("fine"))).model_dump_json()
        assert (text or b"").decode() == expected
        assert "-0" not in expected or any(digit in expected for digit in "123456789")


def test_an_average_of_integers_has_a_floats_digits(run: Run) -> None:
    schema: Any = one(float | None)
    for integer in (1, 2, 2):
        Everything.objects.create(integer=integer)
    (text,) = run(Total(ROWS, schema, x=Avg("integer")).statement)
    assert (text or b"").decode() == schema(**ROWS.aggregate(x=Avg("integer"))).model_dump_json()


def test_parameters_and_joins(run: Run) -> None:
    class Prices(Schema):
        count: int
        most: Decimal | None

    expected = Product.objects.filter(category__slug="garden", low_price__gte=5)
    aggregates: dict[str, Any] = {"count": Count("*"), "most": Max("high_price")}
    rows = Product.objects.filter(category__slug=Param("slug"), low_price__gte=Param("least"))
    total = Total(rows, Prices, **aggregates)
    (text,) = run(total.statement, slug="garden", least=5)
    assert orjson.loads(text or b"") == orjson.loads(
        Prices(**expected.aggregate(**aggregates)).model_dump_json()
    )


async def of_all() -> tuple[bytes, tuple[bytes, bool]]:
    class Number(Schema):
        number: int

    class Of(Number):
        category: Annotated[str | None, Field(alias="category.slug")]

    groups = Product.objects.values("category__slug").annotate(number=Count("*")).order_by("category__slug")
    return await Total(Product.objects.all(), Number, number=Count("*"))(), await Groups(
        groups, Of, limit=2
    )()


def test_as_a_query() -> None:
    total, (groups, has_more) = asyncio.run(of_all())
    assert orjson.loads(total) == {"number": Product.objects.count()}
    rows = Product.objects.values("category__slug").annotate(number=Count("*")).order_by("category__slug")
    expected = [{"number": each["number"], "category": each["category__slug"]} for each in rows]
    assert len(expected) > 2
    assert (orjson.loads(groups), has_more) == (expected[:2], True)


def one(annotation: Any, **more: Any) -> Any:
    return create_model("Some", __base__=Schema, x=(annotation, ...), **more)


GROUPED = ROWS.values("label__key").annotate(x=Count("*"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Total(ROWS, one(int), x=Sum("integer")), "Some.x is null where"),
        (lambda: Total(ROWS, one(Decimal | None), x=Avg("price")), "equals what the schema prints"),
        (lambda: Total(ROWS, one(int | None), x=Avg("integer")), "equals what the schema prints"),
        (lambda: Total(ROWS, one(Decimal | None), x=Avg("integer")), "equals what the schema prints"),
        (lambda: Total(ROWS, one(float | None), x=StdDev("integer")), "no Count, Min, Max, Sum or Avg"),
        (lambda: Total(ROWS, one(int | None), x=Sum(F("integer") + 1)), "is not over a field"),
        (lambda: Total(ROWS, one(bool | None), x=Max("yes")), "cannot write .* of a BooleanField"),
        (lambda: Total(ROWS, one(Any), x=Max("document")), "cannot write .* of a JSONField"),
        (lambda: Total(ROWS, one(Any), x=Sum("duration")), "cannot write .* of a DurationField"),
        (lambda: Total(ROWS, one(Any), x=Min("duration")), "cannot write a DurationField"),
        (lambda: Total(ROWS, one(int), y=Count("*")), "differ in x, y"),
        (lambda: Total(ROWS.distinct(), one(int), x=Count("*")), "not of a slice"),
        (lambda: Total(ROWS.union(ROWS), one(int), x=Count("*")), "not of a slice"),
        (lambda: Total(GROUPED, one(int), x=Count("*")), "not of a slice"),
        (lambda: Total(ROWS[:5], one(int), x=Count("*")), "not of a slice"),
        (lambda: Total(ROWS.none(), one(int), x=Count("*")), "never has a row"),
        (lambda: Total(ROWS.select_for_update(), one(int), x=Count("*")), "no window and no lock"),
        (
            lambda: Total(
                ROWS.alias(at=Window(RowNumber(), order_by="pk")).filter(at__lt=3), one(int), x=Count("*")
            ),
            "no window and no lock",
        ),
        (lambda: Groups(ROWS, one(int), limit=1), "values.*and in order"),
        (lambda: Groups(GROUPED, one(int), limit=1), "values.*and in order"),
        (lambda: Groups(GROUPED.order_by("x"), one(int, text=(str, ...)), limit=1), "Some.text is neither"),
    ],
)
def test_refused_at_import(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        build()


def test_never_null_in_a_group() -> None:
    """Of a field that is not null, without a filter: a group has a row."""
    rows: Any = Product.objects.values("category__slug").order_by("category__slug")
    Groups(rows.annotate(x=Max("low_price")), one(Decimal), limit=1)
    with pytest.raises(ImproperlyConfigured, match="is null where"):
        Groups(rows.annotate(x=Max("low_price", filter=Q(low_price__gt=3))), one(Decimal), limit=1)
    with pytest.raises(ImproperlyConfigured, match="is null where"):
        Groups(rows.annotate(x=Max("category__name")), one(str), limit=1)
