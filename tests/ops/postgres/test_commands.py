"""Compiled commands against the ORM's own rows: values of every kind, and writers beside each other."""

import asyncio
import datetime
import uuid
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Annotated, Any

import orjson
import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection, models
from django.db.models import Count, Q, QuerySet, Value, Window
from django.db.models.functions import Now, Rank
from ninja import Schema
from pydantic import Field

from ops.postgres.bulk import UpdateMany
from ops.postgres.commands import Delete, Insert, NotWritten, Row, RowByKey, RowCommand, Update
from ops.postgres.compiled import One
from ops.postgres.connection import OutcomeUnknown
from ops.postgres.digests import digest
from ops.postgres.pool import open_pool
from ops.postgres.statement import Param
from tests import extra, spare
from tests.extra import OWN_SESSIONS
from tests.ops.postgres.models import Everything, Label, Loose, Spelled, Sticker
from tests.shop.models import Category, Product, Voucher
from tests.shop.schemas import CategoryOut, ProductOut

pytestmark = pytest.mark.django_db

BY_ID = Product.objects.filter(pk=Param("id"))
GET = One(BY_ID, ProductOut)
CREATE = Insert(Product, ProductOut, defaults={"time_created": Now()})
CHANGE = Update(BY_ID, ProductOut)
REMOVE = Delete(BY_ID, ProductOut)
GOOD: dict[str, Any] = {
    "low_price": Decimal("1.5"),
    "high_price": 2,
    "demand_qty": 1,
    "offers_qty": 2,
    "bought_qty": 3,
    "sold_qty": 2**31 - 1,
}


def wait(work: Any) -> Any:
    """On Django's connection, in the test's transaction."""

    async def awaited() -> Any:
        return await work

    return async_to_sync(awaited)()


def refusal(work: Any) -> tuple[bool, list[str]]:
    with pytest.raises(NotWritten) as caught:
        wait(work)
    return caught.value.is_missing, list(caught.value.unknown)


def test_a_row_through_its_life() -> None:
    """In the test's transaction, on Django's connection; each answer is the query's own, to the byte."""
    before = Product.objects.count()
    created = wait(CREATE(**GOOD, category="garden"))
    product = Product.objects.select_related("category").get(pk=created.key)
    assert created == Row(ProductOut.from_orm(product).model_dump_json().encode(), str(product.pk))
    assert created.json == wait(GET(id=product.pk))
    assert abs(product.time_created - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(hours=1)
    assert {name: getattr(product, name) for name in GOOD} == GOOD

    changed = wait(CHANGE(id=product.pk, low_price="1.75", seen=digest(created.json)))
    assert orjson.loads(changed.json) == orjson.loads(created.json) | {"low_price": "1.75"}
    assert changed.json == wait(GET(id=product.pk))
    assert wait(CHANGE(id=product.pk)) == changed  # no field is given
    moved = wait(CHANGE(id=product.pk, category=None, seen=f"{'0' * 24},{digest(changed.json)}"))
    assert orjson.loads(moved.json)["category"] is None

    assert refusal(CHANGE(id=product.pk, sold_qty=0, seen=digest(created.json))) == (False, [])
    assert refusal(REMOVE(id=product.pk, seen=digest(created.json))) == (False, [])
    assert refusal(CHANGE(id=product.pk, category="no-such")) == (False, ["category"])
    assert refusal(CREATE(**GOOD, category="no-such")) == (False, ["category"])
    assert wait(GET(id=product.pk)) == moved.json
    assert wait(REMOVE(id=product.pk, seen=digest(moved.json))) == moved
    for gone, more in ((CHANGE, {"sold_qty": 0}), (REMOVE, {"seen": "x"}), (REMOVE, {})):
        assert refusal(gone(id=product.pk, **more)) == (True, [])
    assert Product.objects.count() == before


GROUPED = Category.objects.alias(count=Count("id")).filter(count__gte=1)


@pytest.mark.parametrize("rows", [GROUPED, GROUPED.distinct(), Category.objects.distinct()])
def test_rows_of_groups_and_distinct_ones(rows: "QuerySet[Any]") -> None:
    shelf = Category.objects.create(slug="shelf", name="Shelf")
    chosen = rows.filter(name="Shelf", pk=Param("id"))
    row = wait(Update(chosen, CategoryOut, ["slug"])(id=shelf.pk, slug="board"))
    seen = {"seen": digest(row.json)}
    assert Category.objects.get(pk=shelf.pk).slug == "board"
    assert refusal(Delete(chosen, CategoryOut)(id=shelf.pk, seen="x")) == (False, [])
    assert refusal(Delete(chosen.filter(slug="shelf"), CategoryOut)(id=shelf.pk)) == (True, [])
    assert wait(Delete(chosen, CategoryOut)(id=shelf.pk, **seen)) == row


def test_parameters_have_names() -> None:
    assert CREATE.required == GOOD.keys()
    wrong = [
        (CREATE, GOOD | {"id": 1}),
        (CREATE, {"low_price": 1}),
        (CHANGE, {"sold_qty": 1}),
        (REMOVE, {"pk": 1}),
    ]
    for command, values in wrong:
        with pytest.raises(TypeError, match="unknown or missing parameters"):
            command.bind(values)


def test_a_command_runs_once() -> None:
    assert not any(each.repeatable for each in (CREATE.statement, CHANGE.comparing, REMOVE.statement))
    assert GET.statement.repeatable


VALUES: dict[str, tuple[Any, Any]] = {
    "text": (str | None, ' "quoted" \\ é😀 %s $1'),
    "char": (str, "'"),
    "colour": (str, "red"),
    "small": (int, -(2**15)),
    "big": (int, 2**63 - 1),
    "maybe": (bool | None, False),
    "float": (float | None, -1e-7),
    "price": (Decimal | None, Decimal("-12.5")),
    "fine": (Decimal, Decimal("0.000001")),
    "uuid": (uuid.UUID | None, uuid.UUID(int=7)),
    "address": (str | None, "2001:db8::1"),
    "date": (datetime.date | None, datetime.date(99, 1, 2)),
    "moment": (datetime.datetime | None, datetime.datetime(2020, 1, 1, 0, 0, 13, 370000, datetime.UTC)),
    "time": (datetime.time | None, datetime.time(13, 37)),
    "document": (dict[str, Any] | None, {"a": [1, "b'", None, True]}),
    "label_id": (str | None, "leaf"),
}
Written: Any = type(
    "Written",
    (Schema,),
    {"__annotations__": {"id": int} | {name: kind for name, (kind, _) in VALUES.items()}},
)
given = {name: value for name, (_, value) in VALUES.items()}


@pytest.mark.usefixtures("tables")
def test_values_of_every_kind() -> None:
    Label.objects.create(key="leaf", rank=1)
    # The columns that the schema lacks have defaults in Python; of 35, all are filled.
    create = Insert(Everything, Written)
    change = Update(Everything.objects.filter(pk=Param("id")), Written)
    row = wait(create(**given))
    stored = Everything.objects.get(pk=row.key)
    assert {name: getattr(stored, name) for name in VALUES} == given
    assert row.json == wait(One(Everything.objects.filter(pk=Param("id")), Written)(id=row.key))
    assert (stored.grade, stored.binary, stored.shouted) == (-1, b"", "")
    assert wait(change(id=row.key, **given)) == row
    empty = {name: None for name in VALUES if Everything._meta.get_field(name).null}
    assert orjson.loads(wait(change(id=row.key, **empty)).json) == orjson.loads(row.json) | empty
    defaults = orjson.loads(wait(create()).json)
    assert {name: defaults[name] for name in ("char", "small", "document")} == {
        "char": "",
        "small": 0,
        "document": None,
    }


class Point(Schema):
    x: Decimal


@pytest.mark.usefixtures("tables")
def test_a_document_is_written_by_its_encoder_as_the_orm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the encoder does not know, a schema's own objects, is written as they print."""
    monkeypatch.setattr(Everything._meta.get_field("document"), "encoder", DjangoJSONEncoder)
    moment = datetime.datetime(2020, 1, 1, 0, 0, 0, 123456, datetime.UTC)
    row = wait(Insert(Everything, Written)(document={"at": moment, "point": Point(x=Decimal("1.50"))}))
    written = Everything.objects.get(pk=row.key).document
    stored = Everything.objects.create(document={"at": moment})
    stored.refresh_from_db()
    assert written == stored.document | {"point": {"x": "1.50"}}


class Dated(Spelled):
    key = models.UUIDField(primary_key=True, default=uuid.uuid4)
    made = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)
    day = models.DateField(auto_now=True)
    rank = models.IntegerField(db_default=7)
    word = models.CharField(max_length=3, default=lambda: "abc")

    class Meta:
        app_label = "spelled"


class DatedOut(Schema):
    key: uuid.UUID
    made: datetime.datetime
    changed: datetime.datetime
    day: datetime.date
    rank: int
    word: str


@pytest.mark.usefixtures("db")
def test_defaults() -> None:
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Dated)
    create = Insert(Dated, DatedOut, ["rank", "word"])
    change = Update(Dated.objects.filter(pk=Param("key")), DatedOut, ["rank", "word"])
    rows = [orjson.loads(wait(create(**more)).json) for more in ({}, {"rank": 8, "word": "x"})]
    assert [(row["rank"], row["word"]) for row in rows] == [(7, "abc"), (8, "x")]
    assert rows[0]["key"] != rows[1]["key"]
    changed = orjson.loads(wait(change(key=rows[0]["key"], rank=9)).json)
    assert changed["made"] == rows[0]["made"]
    assert changed["changed"] > rows[0]["changed"]


@pytest.mark.usefixtures("db")
def test_the_time_of_a_write_is_no_callers_unless_it_is_named() -> None:
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Dated)
    rows = Dated.objects.filter(pk=Param("key"))
    create, change = Insert(Dated, DatedOut), Update(rows, DatedOut)
    assert create.columns.keys() >= change.columns.keys() == {"rank", "word"}
    before = orjson.loads(wait(create(rank=1)).json)
    assert before["day"] == before["made"][:10]
    Dated.objects.update(day=datetime.date(2020, 1, 1))
    after = orjson.loads(wait(change(key=before["key"], rank=2)).json)
    assert after["changed"] > before["changed"] >= before["made"] == after["made"]
    assert after["day"] == after["changed"][:10]
    known = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
    named = wait(Update(rows, DatedOut, ["made", "changed"])(key=before["key"], changed=known))
    assert orjson.loads(named.json) == after | {"changed": "2020-01-02T00:00:00.000000+00:00"}


class Priced(Spelled):
    price = models.DecimalField(max_digits=7, decimal_places=2, db_default=0)
    big = models.BigIntegerField(db_default=0)
    code = models.CharField(max_length=3, db_default="abc")
    number = models.CharField(max_length=3)
    day = models.DateField(db_default=Now())
    document = models.JSONField(db_default={"a": 1})
    label = models.ForeignKey(Label, on_delete=models.PROTECT, db_default="leaf")

    class Meta:
        app_label = "spelled"


class PricedOut(Schema):
    id: int
    price: Decimal
    big: int
    code: str
    number: str
    day: datetime.date
    document: dict[str, Any]
    label_id: str


@pytest.mark.usefixtures("tables")
def test_a_value_has_the_type_of_its_column_beside_any_default() -> None:
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Priced)
    for key in ("leaf", "root"):
        Label.objects.create(key=key, rank=1)
    create = Insert(Priced, PricedOut, defaults={"number": Value(0)})
    row = {"price": "1.50", "big": 2**40, "code": "é", "number": "007", "day": "2020-01-02", "document": {}}
    row |= {"label_id": "root"}
    created = orjson.loads(wait(create(**row)).json)
    assert created == row | {"id": created["id"]}
    default = orjson.loads(wait(create()).json)
    assert default.pop("id") > created["id"]
    assert default.pop("day") > "2020-01-02"  # today
    assert default == {
        "price": "0.00",
        "big": 0,
        "code": "abc",
        "number": "0",
        "document": {"a": 1},
        "label_id": "leaf",
    }
    with pytest.raises(psycopg.DataError, match="too long"):  # and is not cut
        wait(create(code="abcd"))


class Silent(models.TextField):  # type: ignore[type-arg]
    def get_prep_value(self, value: Any) -> Any:
        return value.lower()


class Bare(Spelled):
    needed = models.IntegerField()
    silent = Silent(default="")
    day = models.DateField(auto_now=True)
    owner = models.ForeignKey(Label, on_delete=models.PROTECT, null=True)

    class Meta:
        app_label = "spelled"


def schema_of(**fields: Any) -> Any:
    annotated = {name: Annotated[kind, Field(alias=name.replace("__", "."))] for name, kind in fields.items()}
    return type("Made", (Schema,), {"__annotations__": annotated})


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda: Insert(Sticker, schema_of(key=str)), "rows in several tables"),
        (lambda: Insert(Product, CategoryOut), "Product.low_price: Postgres cannot fill it"),
        (lambda: Insert(Category, CategoryOut, ["slug"]), "Category.name: Postgres cannot fill it"),
        (lambda: Insert(Product, ProductOut, ["id"]), "cannot fill id"),
        (lambda: Insert(Product, ProductOut, defaults={"nothing": 1}), "no field nothing to give a default"),
        (lambda: Update(Bare.objects.all(), schema_of(silent=str)), "cannot call its get_prep_value"),
        (lambda: Update(Bare.objects.all(), schema_of(owner__rank=int)), "an update needs a field"),
        (lambda: Update(Label.objects.all(), schema_of(rank=int, parent__rank=int)), "in its own table"),
        (
            lambda: Update(Bare.objects.all(), schema_of(owner__key=str, owner_id=str), ["owner__key", "owner_id"]),
            "owner_id and another field fill",
        ),
        (lambda: Update(Category.objects.distinct("name"), CategoryOut), "no distinct"),
        (lambda: Delete(Product.objects.alias(place=Window(Rank())).filter(place=1), ProductOut), "no window"),
        (lambda: Delete(Category.objects.all(), CategoryOut), "CASCADE of Product is the ORM's own work"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_import(
    declare: Callable[[], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    relation: Any = Product._meta.get_field("category").remote_field
    monkeypatch.setattr(relation, "on_delete", models.CASCADE)
    with pytest.raises(ImproperlyConfigured, match=reason):
        declare()


@pytest.mark.parametrize("rule", [models.PROTECT, models.RESTRICT])
def test_without_a_constraint_postgres_protects_nothing(
    rule: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    key: Any = Product._meta.get_field("category")
    monkeypatch.setattr(key.remote_field, "on_delete", rule)
    Delete(Category.objects.all(), CategoryOut)
    monkeypatch.setattr(key, "db_constraint", False)
    with pytest.raises(ImproperlyConfigured, match=f"{rule.__name__} of Product without a constraint"):
        Delete(Category.objects.all(), CategoryOut)
    monkeypatch.setattr(key.remote_field, "on_delete", models.DO_NOTHING)  # nor does the ORM
    Delete(Category.objects.all(), CategoryOut)


@pytest.fixture
def rows(django_db_setup: None) -> Iterator["psycopg.Connection[Any]"]:
    shared = spare.Database(str(settings.DATABASES["default"]["NAME"]))
    with extra.connected(shared, "shop") as connection:
        yield connection


BLOCKED = f"SELECT pid FROM {OWN_SESSIONS} AND wait_event_type = 'Lock' AND query LIKE '%shop_product%'"


UPDATE = "UPDATE shop_product SET demand_qty = 2 WHERE id = %s"


def beside(
    rows: "psycopg.Connection[Any]",
    act: Callable[[list[int]], Any],
    *,
    other: str = UPDATE,
    compares: bool = True,
    command: RowCommand = CHANGE,
) -> tuple[int, Any]:
    """The outcome of a command that waits for another writer, on the native pool; `act` gets the blocked backends."""
    product = extra.inserter(rows, "shop")(demand_qty=1)

    async def race() -> Any:
        async with open_pool():
            seen = digest(await GET(id=product) or b"") if compares else None
            with rows.transaction():
                rows.execute(other, [product])
                values = {"id": product, "seen": seen} | ({} if command.columns == {} else {"sold_qty": 9})
                change = asyncio.create_task(command.run(values))
                spy = spare.Database(str(settings.DATABASES["default"]["NAME"])).connect()
                with spy:
                    blocked: list[int] = []
                    while not change.done():
                        blocked = [pid for (pid,) in spy.execute(BLOCKED).fetchall()]
                        if blocked and act(blocked) is None:
                            break
                        await asyncio.sleep(0.01)
            try:
                return await change
            except (NotWritten, OutcomeUnknown) as error:
                return error

    return product, asyncio.run(race())


JOINED = BY_ID.filter(Q(category=None) | Q(category__slug="garden"))
GROUPS = BY_ID.alias(lines=Count("order_lines")).filter(lines=0)


@pytest.mark.lean
@pytest.mark.parametrize(
    "command",
    [CHANGE, *(kind(found, ProductOut) for kind in (Update, Delete) for found in (JOINED, GROUPS))],
)
def test_a_writer_that_waited_sees_the_other_ones_row(
    rows: "psycopg.Connection[Any]", command: RowCommand
) -> None:
    """No update is lost: Postgres computes the digest again for the row that there is after the wait."""
    product, outcome = beside(rows, lambda _: None, command=command)
    assert isinstance(outcome, NotWritten)
    assert (outcome.is_missing, list(outcome.unknown)) == (False, [])
    row = "SELECT demand_qty, sold_qty FROM shop_product WHERE id = %s"
    assert rows.execute(row, [product]).fetchall() == [(2, 0)]


MOVE = """
    WITH made AS (INSERT INTO shop_category (slug, name) VALUES ('made', 'Made') RETURNING id)
    UPDATE shop_product SET category_id = made.id FROM made WHERE shop_product.id = %s
"""


class MemberOut(Schema):
    id: int
    sold_qty: int
    category: CategoryOut | None


@pytest.mark.lean
@pytest.mark.parametrize("schema", [ProductOut, MemberOut])
def test_a_writer_that_waited_answers_the_row_that_there_is(
    rows: "psycopg.Connection[Any]", schema: type[Schema]
) -> None:
    """Though a related row came into being after the command's snapshot."""

    async def read() -> bytes | None:
        async with open_pool():
            return await One(BY_ID, schema)(id=product)

    command = Update(BY_ID, schema, ["sold_qty"])
    try:
        product, outcome = beside(rows, lambda _: None, other=MOVE, compares=False, command=command)
        assert outcome == Row(asyncio.run(read()) or b"", str(product))
        assert b"made" in outcome.json
    finally:
        rows.execute("UPDATE shop_product SET category_id = NULL WHERE id = %s", [product])
        rows.execute("DELETE FROM shop_category WHERE slug = 'made'")


@pytest.mark.lean
def test_many_that_waited_answer_the_rows_that_there_are(rows: "psycopg.Connection[Any]") -> None:
    change = UpdateMany(Product.objects.all(), ProductOut)

    class Changed(Update):
        async def run(self, values: Mapping[str, Any]) -> Any:
            return await change([{"id": values["id"], "sold_qty": 9}])

    try:
        product, outcome = beside(
            rows, lambda _: None, other=MOVE, compares=False, command=Changed(BY_ID, ProductOut)
        )
        assert outcome.keys == [str(product)]
        assert [row["category"] for row in orjson.loads(outcome.json)] == ["made"]
    finally:
        rows.execute("UPDATE shop_product SET category_id = NULL WHERE id = %s", [product])
        rows.execute("DELETE FROM shop_category WHERE slug = 'made'")


class LooseOut(Schema):
    id: int
    label_id: str
    rank: Annotated[int, Field(alias="label.rank")]
    own_id: int


@pytest.mark.usefixtures("tables")
def test_a_related_row_that_may_be_missing_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loose._meta.get_field("label"), "null", False)
    with pytest.raises(ImproperlyConfigured, match="the row that label names, which may be missing"):
        Insert(Loose, LooseOut)
    Delete(Loose.objects.filter(pk=Param("id")), LooseOut)


class TwiceOut(Schema):
    id: int
    code: str
    percent: int
    category: Annotated[str, Field(alias="category.slug")]
    partner: Annotated[str | None, Field(alias="partner.slug")] = None


def test_two_relations_to_one_table() -> None:
    by_id = Voucher.objects.filter(pk=Param("id"))
    created = wait(Insert(Voucher, TwiceOut)(code="twice", percent=7, category="garden", partner="art"))
    assert created.json == wait(One(by_id, TwiceOut)(id=int(created.key)))
    changed = wait(Update(by_id, TwiceOut)(id=int(created.key), partner="garden"))
    assert orjson.loads(changed.json) == orjson.loads(created.json) | {"partner": "garden"}
    [again] = orjson.loads(wait(UpdateMany(Voucher.objects.all(), TwiceOut)([{"id": int(created.key)}])).json)
    assert again == orjson.loads(changed.json)
    assert wait(Delete(by_id, TwiceOut)(id=int(created.key))) == changed


def test_a_row_that_is_written_and_cannot_be_read_is_not_said_to_be_unwritten() -> None:
    async def query(key: Any) -> bytes:
        raise psycopg.OperationalError(f"lost under the read of {key}")

    by_key = RowByKey(Product, ProductOut)
    by_key.__dict__["_query"] = query
    with pytest.raises(OutcomeUnknown, match="lost under the read of 7"):
        wait(by_key.read("7"))


@pytest.mark.lean
def test_a_writer_that_waited_for_the_rows_end_finds_none(rows: "psycopg.Connection[Any]") -> None:
    """The row was there when its statement began."""
    _, outcome = beside(rows, lambda _: None, other="DELETE FROM shop_product WHERE id = %s", compares=False)
    assert isinstance(outcome, NotWritten)
    assert (outcome.is_missing, list(outcome.unknown)) == (True, [])


@pytest.mark.lean
def test_a_connection_that_is_lost_under_a_command(rows: "psycopg.Connection[Any]") -> None:
    def terminate(blocked: list[int]) -> int:
        with spare.Database(str(settings.DATABASES["default"]["NAME"])).connect() as admin:
            for pid in blocked:
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        return len(blocked)

    _, outcome = beside(rows, terminate)
    assert isinstance(outcome, OutcomeUnknown)
