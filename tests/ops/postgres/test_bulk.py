"""Commands of many rows: values of every kind, in the order of the items, and the rows that single commands give."""

import datetime
from decimal import Decimal
from typing import Any

import orjson
import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.db.models import Count, QuerySet
from django.db.models.functions import Now
from ninja import Schema

from ops.postgres.bulk import DeleteMany, InsertMany, UpdateMany, array
from ops.postgres.commands import Insert, NotWritten, Rows
from ops.postgres.compiled import One
from ops.postgres.statement import Param
from tests.ops.postgres.models import Everything, Label
from tests.ops.postgres.test_commands import GET, GOOD, VALUES, Dated, DatedOut, Written, given, wait
from tests.shop.models import Category, Product, Voucher
from tests.shop.schemas import CategoryOut, ProductOut, VoucherOut

pytestmark = pytest.mark.django_db

CREATE = InsertMany(Product, ProductOut, defaults={"time_created": Now()})
CHANGE = UpdateMany(Product.objects.all(), ProductOut)
REMOVE = DeleteMany(Product.objects.all(), ProductOut)


class LabelOut(Schema):
    key: str
    rank: int


def refusal(work: Any) -> list[tuple[int, str]]:
    with pytest.raises(NotWritten) as caught:
        wait(work)
    return list(caught.value.items)


def test_rows_through_their_life() -> None:
    before = Product.objects.count()
    items = [GOOD | {"sold_qty": number} for number in (7, 5, 6)]
    items[1] |= {"category": "garden"}
    items[2] |= {"time_created": datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)}
    created = wait(CREATE(items))
    ids = [int(key) for key in created.keys]

    def got(ids: list[int]) -> bytes:
        return b"[" + b",\n".join(wait(GET(id=each)) for each in ids) + b"]"

    assert created == Rows(got(ids), [*map(str, ids)])
    assert [row["sold_qty"] for row in orjson.loads(created.json)] == [7, 5, 6]

    order = [ids[1], ids[2], ids[0]]
    changes: list[dict[str, Any]] = [{"category": None}, {"category": "art", "sold_qty": 1}, {}]
    changed = wait(CHANGE([{"id": each} | more for each, more in zip(order, changes, strict=True)]))
    assert changed == Rows(got(order), [*map(str, order)])
    rows = {row["id"]: row for row in orjson.loads(created.json)}
    assert orjson.loads(changed.json) == [rows[each] | c for each, c in zip(order, changes, strict=True)]

    unknown: list[dict[str, Any]] = [
        {"id": ids[0], "category": "no"},
        {"id": ids[1], "sold_qty": 0},
        {"id": 2**40},
    ]
    assert refusal(CHANGE(unknown)) == [(0, "category"), (2, "id")]
    assert refusal(CREATE([GOOD, GOOD | {"category": "no"}])) == [(1, "category")]
    assert refusal(REMOVE([{"id": ids[0]}, {"id": 2**40}])) == [(1, "id")]
    assert got(order) == changed.json
    assert wait(REMOVE([{"id": each} for each in ids])).keys == created.keys
    assert Product.objects.count() == before
    for command in (CREATE, CHANGE, REMOVE):
        assert wait(command([])) == Rows(b"[]", [])


def test_only_keys() -> None:
    create = InsertMany(Product, ProductOut, defaults={"time_created": Now()}, only_keys=True)
    change = UpdateMany(Product.objects.all(), ProductOut, ["sold_qty"], only_keys=True)
    created = wait(create([GOOD, GOOD]))
    ids = orjson.loads(created.json)
    assert [*map(str, ids)] == created.keys
    assert (
        orjson.loads(wait(change([{"id": each, "sold_qty": 9} for each in reversed(ids)])).json) == ids[::-1]
    )
    assert [*Product.objects.filter(pk__in=ids).values_list("sold_qty", flat=True)] == [9, 9]


def test_a_key_that_is_null_names_no_row() -> None:
    """Beside one that does, which stays as it was."""
    key = wait(CREATE([GOOD])).keys[0]
    items: list[dict[str, Any]] = [{"id": int(key), "sold_qty": 1234}, {"id": None, "sold_qty": 1}]
    assert refusal(CHANGE(items)) == [(1, "id")]
    assert refusal(REMOVE([{"id": None}, {"id": int(key)}])) == [(0, "id")]
    assert Product.objects.get(pk=key).sold_qty == GOOD["sold_qty"]


def test_rows_of_a_queryset_alone() -> None:
    ids = [int(key) for key in wait(CREATE([GOOD | {"sold_qty": n} for n in range(3)])).keys]
    sold = Product.objects.filter(sold_qty__gt=0, category=None)
    for command in (UpdateMany(sold, ProductOut), DeleteMany(sold, ProductOut)):
        assert refusal(command([{"id": each} for each in ids])) == [(0, "id")]
        assert wait(command([{"id": each} for each in ids[1:]])).keys == [*map(str, ids[1:])]


@pytest.mark.parametrize(
    "rows",
    [
        Category.objects.distinct(),
        Category.objects.filter(vouchers__uses__gte=0).distinct(),
        Category.objects.annotate(count=Count("vouchers")),
        Category.objects.alias(count=Count("vouchers")).filter(count__gte=2).distinct(),
    ],
)
def test_rows_of_groups_and_distinct_ones(rows: "QuerySet[Any]") -> None:
    """Which Postgres does not lock. The second category is none of them, or has another name."""
    ids = [Category.objects.create(slug=f"shelf-{at}", name=f"{at}").pk for at in range(2)]
    for percent in range(2):
        Voucher.objects.create(code=f"v{percent}", percent=percent, category_id=ids[0])
    rows = rows.filter(name="0")
    items = [{"id": each} for each in ids]
    change = UpdateMany(rows, CategoryOut, ["slug"])
    assert refusal(change([each | {"slug": "board"} for each in items])) == [(1, "id")]
    assert wait(change([items[0] | {"slug": "board"}])).keys == [f"{ids[0]}"]
    assert Category.objects.get(pk=ids[0]).slug == "board"
    remove = DeleteMany(rows, CategoryOut)
    assert refusal(remove(items)) == [(1, "id")]
    assert wait(remove(items[:1])).keys == [f"{ids[0]}"]
    Category.objects.create(pk=ids[0], slug="again")  # for its vouchers


def test_items_have_names() -> None:
    assert CREATE.required == GOOD.keys()
    for command, items in (
        (CREATE, [GOOD, GOOD | {"id": 1}]),
        (CREATE, [GOOD, {"low_price": 1}]),
        (CHANGE, [{"id": 1}, {"sold_qty": 1}]),
        (REMOVE, [{"id": 1, "sold_qty": 1}]),
    ):
        with pytest.raises(TypeError, match="unknown or missing fields"):
            command.bind(items)
    with pytest.raises(ValueError, match="one key"):
        CHANGE.bind([{"id": 1}, {"id": 1}])


def test_arrays() -> None:
    arrays: list[list[Any]] = [
        ["", "NULL", None, '"', "\\", "{a,b}", " a ", "é\n"],
        ["", "NULL", "{a,b}", " a ", "é\n", "None"],
        [1, None, Decimal("1E+5"), 1.5, float("inf"), True],
        [1, None, -(2**63)],
        [None],
        [],
    ]
    for values in arrays:
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s::text[]", [array(values).decode()])
            [(read,)] = cursor.fetchall()
        assert read == [None if value is None else str(value) for value in values]
    for value in ["b\0", '"\0', "\0"]:
        with pytest.raises(psycopg.DataError, match="NUL"):
            array([None, value] if value == "\0" else ["a", value])


@pytest.mark.usefixtures("tables")
def test_values_of_every_kind() -> None:
    """In an array each, beside nulls, and texts that look like an array's own."""
    Label.objects.create(key="leaf", rank=1)
    create, change = InsertMany(Everything, Written), UpdateMany(Everything.objects.all(), Written)
    empty = {name: None for name in VALUES if Everything._meta.get_field(name).null}
    odd = {"text": '{"a\\,NULL', "char": "NULL", "document": {"a": ['"', "\\", "{,}"]}, "big": -(2**63)}
    items = [given, {}, given | empty, given | odd]
    rows = wait(create(items))
    stored = {str(row.pk): row for row in Everything.objects.all()}
    fields: Any = Everything._meta.get_field
    kept = {name: fields(name).get_default() for name in VALUES}
    for key, item in zip(rows.keys, [given, kept, given | empty, given | odd], strict=True):
        assert {name: getattr(stored[key], name) for name in VALUES} == item
    get = One(Everything.objects.filter(pk=Param("id")), Written)
    assert rows.json == b"[" + b",\n".join(wait(get(id=key)) for key in rows.keys) + b"]"

    changes = [odd, given, {}, empty]
    wait(change([{"id": int(key)} | more for key, more in zip(rows.keys, changes, strict=True)]))
    stored = {str(row.pk): row for row in Everything.objects.all()}
    for key, item in zip(rows.keys, [given | odd, given, given | empty, given | odd | empty], strict=True):
        assert {name: getattr(stored[key], name) for name in VALUES} == item


@pytest.mark.usefixtures("tables")
def test_values_that_do_not_fit_are_not_cut() -> None:
    create = InsertMany(Everything, Written)
    for item in ({"char": "x" * 201}, {"price": Decimal(100_000)}):
        with pytest.raises(psycopg.DataError):
            wait(create([{}, item]))


@pytest.mark.usefixtures("db")
def test_defaults() -> None:
    """Those of Python are made for each row that needs one."""
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Dated)
    create = InsertMany(Dated, DatedOut, ["rank", "word"])
    change = UpdateMany(Dated.objects.all(), DatedOut, ["rank", "word"])
    rows = orjson.loads(wait(create([{}, {"rank": 8}, {"word": "x"}])).json)
    assert [(row["rank"], row["word"]) for row in rows] == [(7, "abc"), (8, "abc"), (7, "x")]
    assert len({row["key"] for row in rows}) == 3
    [changed] = orjson.loads(wait(change([{"key": rows[1]["key"], "rank": 9}])).json)
    assert (changed["made"], changed["rank"]) == (rows[1]["made"], 9)
    assert changed["changed"] > rows[1]["changed"]


@pytest.mark.usefixtures("tables")
def test_keys_of_the_clients_own() -> None:
    """Rows are in the order of the items, not of their keys."""
    keys = ["b", "c", "a"]
    created = wait(InsertMany(Label, LabelOut)([{"key": key, "rank": 1} for key in keys]))
    assert (created.keys, [row["key"] for row in orjson.loads(created.json)]) == (keys, keys)
    change = UpdateMany(Label.objects.all(), LabelOut, only_keys=True)
    assert wait(change([{"key": key, "rank": 2} for key in keys[::-1]])).json == b'["a",\n"c",\n"b"]'


def test_single_commands_give_the_same_rows() -> None:
    create = {"code": "one", "percent": 1, "category": "garden", "starts": datetime.date(2030, 1, 1)}
    [many] = orjson.loads(wait(InsertMany(Voucher, VoucherOut)([create])).json)
    Voucher.objects.get(code="one").delete()
    one = orjson.loads(wait(Insert(Voucher, VoucherOut)(**create)).json)
    assert many | {"id": one["id"], "created": one["created"]} == one


class Sold(Schema):
    sold_qty: int


def test_what_cannot_work_is_refused_at_import() -> None:
    with pytest.raises(ImproperlyConfigured, match="needs the field of their key"):
        UpdateMany(Product.objects.all(), Sold)
    with pytest.raises(ImproperlyConfigured, match="may have no Param"):
        UpdateMany(Product.objects.filter(sold_qty=Param("sold")), ProductOut)
