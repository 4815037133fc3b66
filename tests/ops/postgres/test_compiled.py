"""Compiled querysets against the ORM's own answers, on the table of products."""

import asyncio
import datetime
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import orjson
import pytest
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Coalesce, Concat, Lower
from ninja import Schema
from pydantic import Field, computed_field

from ops.postgres.compiled import Columns, One, row, value
from ops.postgres.pool import open_pool
from ops.postgres.statement import Param
from tests.ops.postgres.conftest import Run
from tests.ops.postgres.many import Many
from tests.ops.postgres.models import Everything, Label
from tests.shop.models import Category, Product
from tests.shop.schemas import CategoryOut, ProductOut

pytestmark = pytest.mark.django_db

T = TypeVar("T")
Await = Callable[[Awaitable[T]], T]
MOMENT = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.date(2020, 1, 1)


@pytest.fixture
def wait(db: None) -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Await something on a loop that has the pool open."""
    with asyncio.Runner() as runner:
        native = open_pool()
        runner.run(native.__aenter__())

        async def wait(what: Awaitable[Any]) -> Any:
            return await what

        yield lambda what: runner.run(wait(what))
        runner.run(native.__aexit__(None, None, None))


def printed(rows: "QuerySet[Any]", schema: type[Schema] = ProductOut) -> Any:
    return [orjson.loads(schema.from_orm(each).model_dump_json()) for each in rows]


PRODUCTS = Product.objects.all()
BY_ID = PRODUCTS.order_by("id")


def test_one(wait: Any) -> None:
    get = One(PRODUCTS.filter(pk=Param("id")), ProductOut)
    first = BY_ID[0]
    assert wait(get(id=first.pk)) == ProductOut.from_orm(first).model_dump_json().encode()
    assert wait(get(id=-1)) is None
    assert wait(get(id=None)) is None
    with pytest.raises(TypeError, match=r"parameters: id, pk; this query takes \['id'\]"):
        wait(get(pk=1))


def test_one_is_not_sorted_by_the_models_order() -> None:
    assert b"ORDER BY" not in One(PRODUCTS.filter(demand_qty=Param("x")), ProductOut).statement.sql
    latest = One(PRODUCTS.order_by("-id"), ProductOut, ["id"])
    assert b"ORDER BY" in latest.statement.sql


@pytest.mark.parametrize(
    "order", [["id"], ["-id"], ["-low_price", "id"], ["category__slug", "-time_created", "id"]]
)
def test_many_keeps_the_order(wait: Any, order: list[str]) -> None:
    rows = PRODUCTS.order_by(*order)
    found = orjson.loads(wait(Many(rows, ProductOut, limit=200)()))
    assert found == printed(rows[:200])


def test_many_without_rows(wait: Any) -> None:
    assert wait(Many(BY_ID.filter(pk=Param("id")), ProductOut, limit=5)(id=-1)) == b"[]"


def test_the_models_own_order_will_do(wait: Any) -> None:
    assert orjson.loads(wait(Many(PRODUCTS, ProductOut, limit=3)())) == printed(PRODUCTS[:3])


def test_the_schemas_fields_in_the_order_asked(wait: Any) -> None:
    (found,) = orjson.loads(wait(Many(BY_ID, ProductOut, iter(["category", "id"]), limit=1)()))
    assert list(found) == ["category", "id"]


# Each lookup by a parameter, and the same by a constant.
LOOKUPS: list[tuple[str, Any]] = [
    ("pk", 7),
    ("low_price__gte", Decimal("250.5")),
    ("low_price__lt", 3),
    ("demand_qty", 5),
    ("time_created__gte", MOMENT),
    ("time_created__date", DAY),
    ("time_created__date__gt", DAY),
    ("time_created__year", 2020),
    ("time_created__hour__lte", 1),
    ("category", 1),
    ("category__slug", "garden"),
    ("category__slug__in", ["garden", "50%", ":x"]),
    ("category__slug__contains", "ar%"),
    ("category__slug__contains", "_"),
    ("category__slug__contains", "ard"),
    ("category__slug__startswith", "gar"),
    ("category__slug__iexact", "GARDEN"),
    ("category__slug__icontains", "RDE"),
    ("category__slug__endswith", "\\"),
    ("category__slug__regex", "^g.*n$"),
    ("category__name", "50% :name $1 it's"),
    ("category__isnull", True),
    ("id__range", (5, 9)),
]
CONSTANTS_ONLY = ("__in", "__isnull", "__range", "__year")


@pytest.mark.parametrize(("lookup", "operand"), LOOKUPS)
def test_lookups(wait: Any, lookup: str, operand: Any) -> None:
    expected = printed(BY_ID.filter(**{lookup: operand})[:20])
    assert orjson.loads(wait(Many(BY_ID.filter(**{lookup: operand}), ProductOut, limit=20)())) == expected
    if not lookup.endswith(CONSTANTS_ONLY):
        query = Many(BY_ID.filter(**{lookup: Param("operand")}), ProductOut, limit=20)
        assert orjson.loads(wait(query(operand=operand))) == expected


@pytest.mark.parametrize(
    "rows",
    [
        BY_ID.filter(Q(low_price__lt=50) | ~Q(category__slug="50%")),
        BY_ID.filter(low_price__lt=F("high_price") - 100),
        BY_ID.annotate(gap=F("high_price") - F("low_price"))
        .filter(gap__gt=Decimal("9.5"))
        .order_by("-gap", "id"),
        BY_ID.annotate(said=Concat(Lower("category__slug"), Value(" 100% :x"))).filter(said="garden 100% :x"),
        BY_ID.annotate(slug=Coalesce("category__slug", Value("%s"))).filter(slug="%s"),
        BY_ID.exclude(category=None).distinct(),
        BY_ID.filter(time_created__gt=F("time_created") - datetime.timedelta(days=1)),
        BY_ID.select_related("category").defer("low_price"),
        BY_ID.filter(Exists(Category.objects.filter(pk=OuterRef("category_id"), slug="garden"))),
    ],
)
def test_querysets(wait: Any, rows: "QuerySet[Any]") -> None:
    assert orjson.loads(wait(Many(rows, ProductOut, limit=20)())) == printed(rows[:20])


def test_aggregates(wait: Any) -> None:
    rows = (
        Category.objects.annotate(many=Count("products", filter=Q(products__low_price__gte=Decimal(5))))
        .filter(many__gt=Param("least"))
        .order_by("-many", "id")
    )
    plain = Category.objects.annotate(many=Count("products", filter=Q(products__low_price__gte=Decimal(5))))
    expected = printed(plain.filter(many__gt=1).order_by("-many", "id"), CategoryOut)
    assert expected
    assert orjson.loads(wait(Many(rows, CategoryOut, limit=100)(least=1))) == expected


def test_a_parameter_used_twice(wait: Any) -> None:
    between = BY_ID.filter(low_price__lte=Param("price"), high_price__gte=Param("price"))
    found = orjson.loads(wait(Many(between, ProductOut, limit=9)(price=Decimal(100))))
    assert found == printed(BY_ID.filter(low_price__lte=100, high_price__gte=100)[:9])


def test_columns(wait: Any) -> None:
    """One text a column, without a separator where there is one row, and none without rows."""
    query = Columns(
        BY_ID.filter(pk__lte=Param("most")),
        [value(Product, ProductOut, name) for name in ("id", "category", "time_created")]
        + [row(Product, ProductOut, ["id"])],
        limit=5,
    )
    first = BY_ID[0].pk
    for most in (first - 1, first, first + 3):
        texts, count = wait(query.fetch(query.statement.bind({"most": most})))
        expected = printed(BY_ID.filter(pk__lte=most))
        assert count == len(expected)
        columns = [[each[name] for each in expected] for name in ("id", "category", "time_created")]
        columns.append([{"id": each["id"]} for each in expected])
        assert [orjson.loads(b"[%b]" % text) for text in texts] == columns


def test_filters_on_documents_and_arrays(run: Run) -> None:
    """What a constant is bound as suits the operators of jsonb and arrays."""

    class Out(Schema):
        document: Any

    stored = Everything.objects.create(document={"a": {"b": ["x", 1]}, "%s": 2}, texts=["a", "b%"])
    rows = Everything.objects.all()
    for found in (
        rows.filter(document__a={"b": ["x", 1]}),
        rows.filter(document__a__b__0="x"),
        rows.filter(document__contains={"%s": 2}),
        rows.filter(document__has_key="%s"),
        rows.filter(texts__contains=["b%"]),
        rows.filter(texts__0="a"),
        rows.filter(texts__len=2),
        rows.filter(texts=Param("texts")),
    ):
        statement = One(found, Out).statement
        (text,) = run(statement, **{name: ["a", "b%"] for name in statement.names})
        assert text
        assert orjson.loads(text) == {"document": stored.document}


def test_a_self_join_is_quoted(run: Run) -> None:
    class Out(Schema):
        key: str
        up: Annotated[str | None, Field(alias="parent.parent.key")] = None

    root = Label.objects.create(key="root", rank=0)
    middle = Label.objects.create(key="middle", rank=1, parent=root)
    Label.objects.create(key="leaf", rank=2, parent=middle)
    query = Many(Label.objects.order_by("-rank"), Out, limit=5)
    (text,) = run(query.rows.statement)
    assert text == b'{"key":"leaf","up":"root"},\n{"key":"middle","up":null},\n{"key":"root","up":null}'


class WholePrice(Schema):
    low_price: int


class Twice(Schema):
    id: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> int:
        return 2 * self.id


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: One(BY_ID, WholePrice), "equals what the schema prints"),
        (lambda: One(BY_ID, Twice), "Postgres cannot compute twice"),
        (lambda: One(BY_ID[:5], ProductOut), "cannot be a slice"),
        (lambda: Many(BY_ID[5:], ProductOut, limit=5), "cannot be a slice"),
        (lambda: Many(PRODUCTS.order_by(), ProductOut, limit=5), "needs an order"),
        (lambda: Many(Category.objects.all(), CategoryOut, limit=5), "needs an order"),
        (lambda: Many(BY_ID, ProductOut, limit=0), "limit must be at least 1"),
        (lambda: Many(BY_ID.none(), ProductOut, limit=5), "never has a row"),
        (lambda: One(PRODUCTS.filter(pk__in=[]), ProductOut), "never has a row"),
        (lambda: One(PRODUCTS, ProductOut, ["price"]), "ProductOut has no field price"),
        (lambda: One(PRODUCTS, ProductOut, []), "needs a field"),
        (lambda: One(Category.objects.all(), ProductOut), "Category has no field low_price"),
    ],
)
def test_refused_at_import(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        build()


@pytest.mark.parametrize("lookup", ["category__isnull", "no_such_field", "low_price__nothing"])
def test_refused_by_the_orm(lookup: str) -> None:
    with pytest.raises((FieldError, ValueError)):
        One(PRODUCTS.filter(**{lookup: Param("x")}), ProductOut)
