"""Objects and lists in a row: what Postgres writes is what the schema prints, in one statement."""

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

import orjson
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.models import (
    BigIntegerField,
    BooleanField,
    Case,
    CharField,
    Count,
    DateField,
    DateTimeField,
    DecimalField,
    ExpressionWrapper,
    F,
    FloatField,
    IntegerField,
    JSONField,
    Manager,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
)  # fmt: skip
from django.db.models.functions import Cast, Coalesce, Concat, ExtractSecond, Lower, TruncMonth
from django.http import HttpRequest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ninja import Schema
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainSerializer,
    computed_field,
    create_model,
    field_validator,
    model_serializer,
)

from api.orjson_renderer import OrjsonRenderer
from ops.postgres import through_django
from ops.postgres.bulk import InsertMany, UpdateMany
from ops.postgres.commands import Delete, Insert, NotWritten, Update
from ops.postgres.compiled import Columns, One, members_of, row, value
from ops.postgres.digests import digest
from ops.postgres.nesting import Children, More
from ops.postgres.statement import Param
from tests.ops.postgres.conftest import Run
from tests.ops.postgres.models import Everything, Holding, Label, Loose, Sticker
from tests.ops.postgres.test_json_sql import ANY_TEXT, MOMENTS, decimals
from tests.shop.models import Category, Order, OrderLine, Product, Tag, Voucher
from tests.shop.schemas import LineInOrder, OrderLineOut, OrderOut, Payment, TagOut, VoucherInOrder

pytestmark = pytest.mark.django_db

MOMENT = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class PlainOrder(Schema):
    """Without the annotation that the shop's listing has."""

    id: int
    number: str
    placed: datetime.datetime
    paid: Payment
    voucher: VoucherInOrder | None
    tags: Annotated[list[TagOut], Children(order_by="slug", limit=10)]
    lines: Annotated[list[LineInOrder], Children(order_by="position", limit=5)]
    lines_more: Annotated[bool, More("lines")] = False


def printed(one: BaseModel) -> bytes:
    """What an endpoint answers that returns it."""
    return OrjsonRenderer().render(HttpRequest(), one.model_dump(), response_status=200)


def as_the_orm_reads_it(number: str) -> Order:
    """The order, with lists as long as the schema's, and the group as an attribute."""
    order: Any = Order.objects.get(number=number)
    lines = order.lines.select_related("product__category").order_by("position")
    order._prefetched_objects_cache = {"lines": lines[:5], "tags": order.tags.order_by("slug")[:10]}
    order.paid = order
    order.lines_more = lines.count() > 5
    return order  # type: ignore[no-any-return]


def make_order(number: str, lines: int = 0, **values: Any) -> Order:
    order = Order.objects.create(number=number, **{"placed": MOMENT} | values)
    product = Product.objects.order_by("id")[0]
    OrderLine.objects.bulk_create(
        OrderLine(order=order, position=at, product=product) for at in range(lines, 0, -1)
    )
    return order


def get(run: Run, rows: "QuerySet[Any]", schema: type[BaseModel], *fields: str) -> Any:
    (text,) = run(One(rows, schema, fields or None).statement)
    return text


@pytest.mark.parametrize("lines", [0, 1, 5, 6])
def test_an_order_with_all_that_belongs_to_it(run: Run, lines: int) -> None:
    order = make_order("x", lines, paid_amount=Decimal("12.5"))
    order.tags.set(Tag.objects.bulk_create([Tag(slug=slug) for slug in ("new", "big", "old")]))
    text = get(run, Order.objects.filter(pk=order.pk), PlainOrder)
    assert text == printed(PlainOrder.from_orm(as_the_orm_reads_it("x")))
    found = orjson.loads(text)
    assert [line["position"] for line in found["lines"]] == [*range(1, lines + 1)][:5]
    assert [tag["slug"] for tag in found["tags"]] == ["big", "new", "old"]
    assert found["lines_more"] is (lines == 6)
    assert found["voucher"] is None


def test_nasty_values_at_every_level(run: Run) -> None:
    category = Category.objects.create(slug="nasty", name="")
    product = Product.objects.order_by("id")[0]
    voucher = Voucher.objects.create(code="nasty", percent=1, category=category)
    order = make_order("nasty", 2, voucher=voucher)
    tag = Tag.objects.create(slug="t")
    order.tags.add(tag)
    query = One(Order.objects.filter(pk=order.pk), PlainOrder)

    @settings(max_examples=25, deadline=None, suppress_health_check=[*HealthCheck], database=None)
    @given(
        text=ANY_TEXT.map(lambda text: text[:50]),
        price=decimals(7, 2),
        moment=MOMENTS,
        is_known=st.booleans(),
    )
    def check(text: str, price: Decimal, moment: datetime.datetime, is_known: bool) -> None:  # noqa: FBT001
        Category.objects.filter(pk=category.pk).update(name=text)
        Tag.objects.filter(pk=tag.pk).update(slug=text)
        price = min(price, Decimal(0))  # lower than the other price
        Product.objects.filter(pk=product.pk).update(low_price=price, category=category if is_known else None)
        Order.objects.filter(pk=order.pk).update(
            paid_amount=price, paid_currency=text[:3], placed=moment, voucher=voucher if is_known else None
        )
        assert run(query.statement) == [printed(PlainOrder.from_orm(as_the_orm_reads_it("nasty")))]

    check()


class LeafOut(Schema):
    slug: str


class MiddleOut(Schema):
    slug: str
    parent: LeafOut | None
    children: Annotated[list[LeafOut], Children(order_by="-slug", limit=2)]


class TreeOut(Schema):
    slug: str
    parent: MiddleOut | None
    children: Annotated[list[MiddleOut], Children(order_by="-slug", limit=2)]


def test_three_levels_of_one_table(run: Run) -> None:
    """Joins of a table with itself, and lists of its own rows within such lists."""
    root = Tag.objects.create(slug='the "root"')
    middle = Tag.objects.create(slug="middle", parent=root)
    for number in range(3):
        leaf = Tag.objects.create(slug=f"leaf{number}", parent=middle)
    assert get(run, Tag.objects.filter(pk=middle.pk), TreeOut) == (
        b'{"slug":"middle","parent":{"slug":"the \\"root\\"","parent":null,"children":[{"slug":"middle"}]},'
        b'"children":[{"slug":"leaf2","parent":{"slug":"middle"},"children":[]},'
        b'{"slug":"leaf1","parent":{"slug":"middle"},"children":[]}]}'
    )
    assert orjson.loads(get(run, Tag.objects.filter(pk=root.pk), TreeOut))["children"] == [
        {
            "slug": "middle",
            "parent": {"slug": 'the "root"'},
            "children": [{"slug": "leaf2"}, {"slug": "leaf1"}],
        }
    ]
    assert (
        orjson.loads(get(run, Tag.objects.filter(pk=leaf.pk), TreeOut))["parent"]["parent"]["slug"]
        == root.slug
    )


def test_keys_that_are_texts_or_relations(run: Run) -> None:
    class LabelOut(Schema):
        key: str

    class ChildOut(LabelOut):
        parent: LabelOut | None

    class StuckOut(Schema):
        label: ChildOut | None
        labels: list[LabelOut]
        sticker: ChildOut | None

    root = Label.objects.create(key="root", rank=1)
    sticker = Sticker.objects.create(key="sticky", rank=0, parent=root)
    stored = Everything.objects.create(label=root, sticker=sticker)
    for label in (sticker, root):
        Everything.labels.through.objects.create(everything=stored, label=label)
    assert get(run, Everything.objects.filter(pk=stored.pk), StuckOut) == (
        b'{"label":{"key":"root","parent":null},"labels":[{"key":"root"},{"key":"sticky"}],'
        b'"sticker":{"key":"sticky","parent":{"key":"root"}}}'
    )
    empty = Everything.objects.create()
    text = get(run, Everything.objects.filter(pk=empty.pk), StuckOut)
    assert text == b'{"label":null,"labels":[],"sticker":null}'


class NullableLabel(Schema):
    parent_id: str | None


class KeyOfLabel(Schema):
    key: str


class LooseOut(Schema):
    id: int
    label: KeyOfLabel | None
    nullable: Annotated[NullableLabel | None, Field(alias="label")]


class LooseToWrite(Schema):
    label_id: str | None
    label: NullableLabel | None


def test_a_key_whose_row_is_missing(run: Run) -> None:
    """Without a constraint: the object is null, as the ORM has it, whatever its members, and the row is answered."""
    Label.objects.create(key="here", rank=1)
    for key, name in enumerate(("here", "gone", None), 1):
        Loose.objects.create(pk=key, label_id=name, own_id=key)
    here = b'{"id":1,"label":{"key":"here"},"nullable":{"parent_id":null}}'
    nulls = [b'{"id":%d,"label":null,"nullable":null}' % key for key in (2, 3)]
    rows = Loose.objects.order_by("id")
    assert run(Columns(rows, [row(Loose, LooseOut, LooseOut.model_fields)], limit=9).statement) == [
        b",\n".join([here, *nulls])
    ]
    for loose in Loose.objects.select_related("label"):
        text = get(run, rows.filter(pk=loose.pk), LooseOut, "id", "label")
        assert orjson.loads(text) == {"id": loose.pk, "label": {"key": "here"} if loose.label else None}
    texts = run(Columns(rows, [value(Loose, LooseOut, "label")], limit=9).statement)
    assert texts == [b'{"key":"here"},\nnull,\nnull']
    update = Update(Loose.objects.filter(pk=Param("id")), LooseToWrite)
    for key in (1, 2, 3):  # what a client has seen is what a command compares
        (seen,) = run(One(Loose.objects.filter(pk=key), LooseToWrite).statement)
        write(update, id=key, label_id="here", seen=digest(seen or b""))


def test_a_row_within_an_object_is_missing(run: Run) -> None:
    """An object that needs a row that is missing is null; a row that needs one is none, as with select_related."""

    class OwnId(Schema):
        own_id: int

    class Owned(Schema):
        own: OwnId

    class Holder(Schema):
        id: int
        holder: Annotated[Owned | None, Field(alias="holding")]

    Loose.objects.create(pk=1, own_id=9)
    Holding.objects.create(pk=1, holding_id=1)
    assert get(run, Holding.objects.all(), Holder) == b'{"id":1,"holder":null}'
    assert not run(One(Loose.objects.all(), Owned).statement)
    assert not Loose.objects.select_related("own")


def test_lists_in_lists_and_the_other_side_of_a_relation(run: Run) -> None:
    class OrderInTag(Schema):
        number: str
        lines: Annotated[list[LineInOrder], Children(order_by="position", limit=2)]

    class TagWithOrders(Schema):
        slug: str
        orders: Annotated[list[OrderInTag], Children(order_by="-number")]
        orders_more: Annotated[bool, More("orders")]

    tag = Tag.objects.create(slug="t")
    tag.orders.set([make_order("a", 3), make_order("b")])
    found = orjson.loads(get(run, Tag.objects.filter(pk=tag.pk), TagWithOrders))
    assert [order["number"] for order in found["orders"]] == ["b", "a"]
    assert [[line["position"] for line in order["lines"]] for order in found["orders"]] == [[], [1, 2]]
    assert found["orders_more"] is False


def test_a_list_below_an_object_has_the_objects_rows(run: Run) -> None:
    class ProductId(Schema):
        id: int

    class Shelf(Schema):
        slug: str
        products: Annotated[list[ProductId], Children(order_by="-id", limit=3)]

    class Shown(Schema):
        id: int
        category: Shelf | None
        ids: Annotated[list[ProductId], Field(alias="category.products"), Children(order_by="id", limit=2)]

    product = Product.objects.filter(category__slug="garden").order_by("id")[0]
    found = orjson.loads(get(run, Product.objects.filter(pk=product.pk), Shown))
    of_garden = Product.objects.filter(category__slug="garden")
    assert [each["id"] for each in found["category"]["products"]] == [
        *of_garden.order_by("-id").values_list("id", flat=True)[:3]
    ]
    assert [each["id"] for each in found["ids"]] == [
        *of_garden.order_by("id").values_list("id", flat=True)[:2]
    ]


def test_some_members(run: Run) -> None:
    order = make_order("x", 1)
    rows = Order.objects.filter(pk=order.pk)
    text = get(
        run, rows, PlainOrder, "lines.product.category.slug", "paid.currency", "number", "lines.position"
    )
    slug = Product.objects.order_by("id")[0].category
    assert slug
    assert text == (
        b'{"lines":[{"product":{"category":{"slug":"%b"}},"position":1}],"paid":{"currency":"EUR"},"number":"x"}'
        % slug.slug.encode()
    )
    whole = orjson.loads(get(run, rows, PlainOrder, "paid"))
    assert whole == {"paid": {"amount": "0.00", "currency": "EUR"}}
    for name in ("number.x", "paid.x", "lines.product.x", "x.y", "lines_more.x"):
        with pytest.raises(ImproperlyConfigured, match=r"has no (field|members)|no list"):
            One(rows, PlainOrder, [name])


def test_columns(run: Run) -> None:
    for number in ("x1", "x2"):
        make_order(number, 1)
    rows = Order.objects.filter(number__startswith="x").order_by("number")
    columns = [
        value(Order, PlainOrder, "number"),
        value(Order, PlainOrder, "lines", None, ["position"]),
        value(Order, PlainOrder, "voucher"),
        row(Order, PlainOrder, ["lines_more", "lines.quantity"]),
    ]
    statement = Columns(rows, columns, limit=5).statement
    assert run(statement) == [b'"x1",\n"x2"']
    texts = statement.sql.decode().replace("SELECT", "SELECT ARRAY[", 1).replace(", count(*)", "]", 1)
    assert "COALESCE((SELECT '[{\"position\":' ||" in texts


class WithTotal(Schema):
    id: int
    total: Decimal


def decimal(expression: Any, places: int = 2) -> "ExpressionWrapper[Any]":
    return ExpressionWrapper(expression, DecimalField(max_digits=20, decimal_places=places))


# An expression, and the type of the schema's field.
EXPRESSIONS: list[tuple[str, Any, Any]] = [
    ("product", decimal(F("paid_amount") * F("id")), Decimal),
    ("coalesce", Coalesce("voucher__code", Value("50% :x $1 '{}' \\")), str),
    ("concat", Concat(Lower("paid_currency"), Value(' %s "'), F("number")), str),
    ("case", Case(When(number="x", then=Value("ex")), default=Value(None), output_field=CharField()), str | None),
    ("condition", ExpressionWrapper(Q(number="x"), BooleanField()), bool),
    ("count", Count("lines"), int),
    ("second", ExtractSecond("placed"), int),
    ("whole", ExpressionWrapper(F("paid_amount") * -F("id"), IntegerField()), int),
    ("whole sum", Sum(F("lines__position") + Value(2**62), output_field=BigIntegerField()), int | None),
    ("whole text", ExpressionWrapper(Sum("paid_amount"), IntegerField()), Annotated[int, PlainSerializer(str)]),
    ("latest", Max("placed"), datetime.datetime | None),
    ("month", Cast(TruncMonth("placed"), DateField()), datetime.date),
    ("float", Value(1.5, FloatField()), float),
    ("nothing", Value(None, FloatField()), float | None),
    ("document", F("voucher__details__a"), Any),
    ("reference", F("voucher__category__slug"), str | None),
    ("parameterised", Coalesce("voucher__code", Value("%"), output_field=CharField()), str),
    (
        "subquery",
        Subquery(
            OrderLine.objects.filter(order=OuterRef("pk")).order_by("position").values("order__placed")[:1],
            output_field=DateTimeField(),
        ),
        datetime.datetime | None,
    ),
    ("json", Value({"a": 1}, JSONField()), Any),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expression", "of"), EXPRESSIONS, ids=[each[0] for each in EXPRESSIONS])
def test_annotations(run: Run, name: str, expression: Any, of: Any) -> None:
    voucher = Voucher.objects.create(
        code="v", percent=1, category=Category.objects.all()[0], details={"a": [1, "%"]}
    )
    schema: Any = create_model("Out", __base__=Schema, id=(int, ...), shown=(of, ...))
    for each in (make_order("x", 2, voucher=voucher, paid_amount=Decimal("1.50")), make_order("y")):
        rows = Order.objects.annotate(shown=expression).filter(pk=each.pk)
        expected = printed(schema.from_orm(rows.get()))
        assert orjson.loads(get(run, rows, schema)) == orjson.loads(expected)
        if name not in {"document", "json"}:  # which Postgres spells with spaces
            assert get(run, rows, schema) == expected


def test_a_decimal_of_an_expression_has_the_places_of_its_output_field(run: Run) -> None:
    order = make_order("x", paid_amount=Decimal(10))
    rows = Order.objects.filter(pk=order.pk).annotate(total=decimal(F("paid_amount") / Value(3)))
    assert get(run, rows, WithTotal, "total") == b'{"total":"3.33"}'


def test_a_parameter_in_an_annotation(run: Run) -> None:
    class Out(Schema):
        said: str

    order = make_order("x")
    said = Concat(F("number"), Param("word", CharField()), output_field=CharField())
    statement = One(Order.objects.filter(pk=order.pk).annotate(said=said), Out).statement
    assert run(statement, word='"%s') == [b'{"said":"x\\"%s"}']


def test_a_count_beside_lists(run: Run) -> None:
    """It groups the rows; the lists stay what they are."""

    class Out(PlainOrder):
        tag_count: int

    order = make_order("x", 2)
    order.tags.set(Tag.objects.bulk_create([Tag(slug=slug) for slug in ("a", "b", "c")]))
    rows = Order.objects.filter(pk=order.pk).annotate(tag_count=Count("tags"))
    found = orjson.loads(get(run, rows, Out))
    assert (len(found["lines"]), len(found["tags"]), found["tag_count"]) == (2, 3, 3)


def test_an_annotation_in_a_group(run: Run) -> None:
    class Sums(Schema):
        total: Decimal
        lines: Annotated[int, Field(alias="line_count")]

    class Out(Schema):
        sums: Sums

    order = make_order("x", 2)
    rows = Order.objects.filter(pk=order.pk).annotate(
        total=decimal(F("paid_amount")), line_count=Count("lines")
    )
    assert get(run, rows, Out) == b'{"sums":{"total":"0.00","lines":2}}'


def test_a_list_has_the_rows_of_the_default_manager(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a related manager has them."""
    order = make_order("x", 2)
    order.tags.set(Tag.objects.bulk_create([Tag(slug="seen"), Tag(slug="hidden")]))
    hidden: list[tuple[Any, dict[str, Any]]] = [(OrderLine, {"position": 2}), (Tag, {"slug": "hidden"})]
    for model, condition in hidden:
        shown = Manager.from_queryset(type(model.objects.all()))()
        shown.model = model
        monkeypatch.setattr(shown, "all", model.objects.exclude(**condition).all)
        monkeypatch.setattr(model._meta, "default_manager", shown)
    found = orjson.loads(get(run, Order.objects.filter(pk=order.pk), PlainOrder, "lines.position", "tags"))
    assert found == {"lines": [{"position": 1}], "tags": [{"slug": "seen"}]}


class Loop(Schema):
    slug: str
    parent: "Loop | None"


class Twice(Schema):
    slug: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> str:
        return 2 * self.slug


class Dumped(Schema):
    slug: str

    @model_serializer
    def shout(self) -> str:
        return self.slug.upper()


class Resolved(Schema):
    voucher: VoucherInOrder | None

    @staticmethod
    def resolve_voucher(order: Order) -> Any:
        return order.voucher


class Validated(Schema):
    tags: list[TagOut]

    @field_validator("tags")
    @classmethod
    def shorten(cls, tags: list[TagOut]) -> list[TagOut]:
        return tags[:1]


class Nothing(Schema):
    pass


class Named(Schema):
    name: str


class WholePrice(Schema):
    low_price: int


class LineWithPrice(Schema):
    product: WholePrice


class LongOrder(Schema):
    lines: Annotated[list[LineInOrder], Children(limit=101)]


def refused(**fields: Any) -> type[Schema]:
    definitions: Any = {name: (of, ...) for name, of in fields.items()}
    return create_model("Out", __base__=Schema, **definitions)


@pytest.mark.parametrize(
    ("model", "schema", "message"),
    [
        (Tag, Loop, "Loop is within itself"),
        (Tag, refused(parent=Twice | None), "Postgres cannot compute twice"),
        (Tag, refused(parent=LeafOut), "Tag.parent may be null, and the schema says it is not"),
        (Tag, refused(parent=list[LeafOut]), "Tag.parent is one row: declare the schema itself"),
        (Tag, refused(children=LeafOut), "Tag.children is many rows: declare a list of the schema"),
        (Tag, refused(label=list[LeafOut]), "Out.label: Tag has no relation label"),
        (Tag, refused(parent=Nothing | None), "Nothing: a row needs a field"),
        (Tag, refused(group=LeafOut | None), "a group of its own columns is never null"),
        (Tag, refused(group=Named), "Tag has no field name"),
        (Order, Resolved, "Postgres cannot call what converts or checks it"),
        (Order, Validated, "Postgres cannot call what converts or checks it"),
        (
            Order,
            refused(paid=Annotated[Payment, PlainSerializer(str)]),
            "cannot call what converts or checks it",
        ),
        (
            Order,
            refused(paid=Annotated[Payment, Field(exclude=True)]),
            "cannot call what converts or checks it",
        ),
        (
            Order,
            refused(voucher=Annotated[VoucherInOrder, PlainSerializer(str)] | None),
            "cannot call what converts or checks it",
        ),
        (
            Order,
            refused(tags=list[Annotated[TagOut, AfterValidator(lambda tag: tag)]]),
            "cannot call what converts or checks it",
        ),
        (Tag, refused(parent=Dumped | None), "Postgres cannot call its model_serializer"),
        (
            Tag,
            refused(slug=Annotated[str, Field(exclude_if=bool)]),
            "slug: Postgres cannot call its exclude_if",
        ),
        (
            Order,
            refused(more=Annotated[bool, More("voucher")], voucher=VoucherInOrder | None),
            "no list of related",
        ),
        (Order, refused(more=Annotated[bool, More("lines")]), "Out has no field lines"),
        (
            Order,
            refused(lines=Annotated[list[LineWithPrice], Children()]),
            "no JSON that Postgres can write",
        ),
        (
            Order,
            refused(lines=Annotated[list[LineInOrder], Children(order_by="nope")]),
            r"lines: Children\(order_by=...\): Cannot resolve keyword 'nope'",
        ),
        (
            Tag,
            refused(orders=list[LongOrder]),
            "one row may hold 10200 others",
        ),
    ],
)
def test_refused(model: Any, schema: type[Schema], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        One(model.objects.filter(pk=Param("key")), schema)


def test_what_is_said_for_the_document_alone() -> None:
    described = Annotated[TagOut, Field(description="A tag.")]
    One(Order.objects.filter(pk=Param("key")), refused(tags=list[described], voucher=VoucherInOrder | None))


def test_a_limit_is_positive() -> None:
    with pytest.raises(ImproperlyConfigured, match="at least 1, not 0"):
        Children(limit=0)


def test_a_decimal_says_its_digits() -> None:
    rows = Order.objects.annotate(total=ExpressionWrapper(F("paid_amount"), DecimalField()))
    with pytest.raises(ImproperlyConfigured, match=r"WithTotal.total: say its digits"):
        One(rows.filter(pk=1), WithTotal)


def test_what_the_orm_converts_is_cast() -> None:
    class Out(Schema):
        month: datetime.datetime

    month = Coalesce(TruncMonth("placed"), Value(MOMENT))
    with pytest.raises(
        ImproperlyConfigured, match=r"Out.month: the ORM converts it in Python: put a Cast around"
    ):
        One(Order.objects.annotate(month=month).filter(pk=1), Out)


def test_members() -> None:
    category: Any = {"id": {}, "slug": {}, "name": {}}
    product: Any = {"id": {}, "low_price": {}, "category": category}
    assert members_of(Order, OrderOut, {"title": None}) == {
        "id": {},
        "number": {},
        "title": {},
        "placed": {},
        "paid": {"amount": {}, "currency": {}},
        "voucher": {"code": {}, "percent": {}, "category": category},
        "tags": {"slug": {}},
        "lines": {"id": {}, "position": {}, "product": product, "quantity": {}},
        "lines_more": {},
    }


class OrderToWrite(PlainOrder):
    voucher_code: Annotated[str | None, Field(alias="voucher.code")]
    paid_currency: str


def write(command: Any, items: Any = None, **values: Any) -> bytes:
    statement, parameters = command.bind(items or values)
    return command.read(through_django.fetch(statement, parameters), values).json  # type: ignore[no-any-return]


def test_a_command_answers_objects_and_lists(run: Run) -> None:
    """As a query does, and compares them with what the client has seen."""
    Voucher.objects.create(code="v", percent=1, category=Category.objects.all()[0])
    rows = Order.objects.filter(pk=Param("id"))
    fields = ["number", "placed", "voucher_code", "paid_currency"]
    insert, update = Insert(Order, OrderToWrite, fields), Update(rows, OrderToWrite, fields)
    query = One(rows, OrderToWrite).statement

    created = write(insert, number="x", placed=MOMENT, voucher_code="v", paid_currency="CHF")
    found = orjson.loads(created)
    assert found["voucher"]["category"] is not None
    assert (found["paid"]["currency"], found["lines"]) == ("CHF", [])
    key = found["id"]
    assert run(query, id=key) == [created]

    OrderLine.objects.create(order_id=key, position=1, product=Product.objects.order_by("id")[0])
    with pytest.raises(NotWritten, match="the row has changed"):  # a line has come
        write(update, id=key, number="y", seen=digest(created))
    (seen,) = run(query, id=key)
    changed = write(update, id=key, voucher_code=None, seen=digest(seen or b""))
    assert orjson.loads(changed)["voucher"] is None
    assert len(orjson.loads(changed)["lines"]) == 1
    assert run(query, id=key) == [changed]


def test_a_command_of_many_answers_objects(run: Run) -> None:
    order = make_order("x")
    product = Product.objects.order_by("id")[0]
    items = [{"order_id": order.pk, "position": at, "product_id": product.pk} for at in (3, 1)]
    created = orjson.loads(write(InsertMany(OrderLine, OrderLineOut), items))
    query = One(OrderLine.objects.filter(pk=Param("id")), OrderLineOut).statement
    assert [orjson.loads(run(query, id=line["id"])[0] or b"") for line in created] == created
    assert [line["position"] for line in created] == [3, 1]
    changes = [{"id": line["id"], "quantity": 9} for line in created]
    changed = orjson.loads(write(UpdateMany(OrderLine.objects.all(), OrderLineOut), changes))
    assert changed == [line | {"quantity": 9} for line in created]


def test_a_comparison_has_no_join() -> None:
    """Postgres looks again at a condition on the row's own columns once it has the lock, and not at a join."""

    class ProductId(Schema):
        id: int

    class Shelf(Schema):
        slug: str
        products: Annotated[list[ProductId], Children(limit=3)]
        products_more: Annotated[bool, More("products")]

    class Out(Schema):
        quantity: int
        shelf: Annotated[Shelf | None, Field(alias="product.category")]
        product_id: int

    update = Update(OrderLine.objects.filter(pk=Param("id")), Out)
    condition = update.comparing.sql.decode().partition("RETURNING")[0].partition("UPDATE")[2]
    assert " IN (SELECT" not in condition
    line = OrderLine.objects.create(
        order=make_order("x"), position=1, product=Product.objects.order_by("id")[0]
    )
    (seen,) = ask(One(OrderLine.objects.filter(pk=line.pk), Out))
    assert orjson.loads(write(update, id=line.pk, quantity=7, seen=digest(seen or b"")))["quantity"] == 7


def ask(query: One) -> list[bytes | None]:
    result = through_django.fetch(query.statement, [])
    return [result.get_value(row, 0) for row in range(result.ntuples)]


class OrderOfLine(Schema):
    id: int
    quantity: int
    order: PlainOrder


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: Update(OrderLine.objects.filter(pk=1), OrderOfLine),
            "OrderLine: a command cannot answer lines, which is in its own table",
        ),
        (
            lambda: Update(Tag.objects.filter(pk=1), TreeOut),
            "Tag: a command cannot answer parent, which is in its own",
        ),
        (
            lambda: Delete(Order.objects.filter(pk=1), PlainOrder),
            "CASCADE of Order_tags is the ORM's own work",
        ),
    ],
)
def test_commands_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        build()
