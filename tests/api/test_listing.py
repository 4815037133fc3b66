"""Listings beside the sample's: rows of a queryset with a condition, and primary keys of other types."""

import asyncio
from typing import Annotated, Any

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models
from django.db.models import Value, Window
from django.db.models.functions import Cast, Concat, Rank
from django.http import Http404
from django.test import RequestFactory
from ninja import Schema
from pydantic import Field, PlainSerializer

from api import AccessPath, Listing, at_least, describe_list, equals
from api.checks import check_path
from api.problems import Problem
from api.reads.cursors import Cursor, sign
from tests.ops.postgres.conftest import tables
from tests.ops.postgres.models import Badge, Everything, Label, Narrow, Spelled, Sticker, Topic
from tests.shop.models import Order, Product, Voucher
from tests.shop.schemas import OrderOut, ProductOut

__all__ = ["tables"]  # a fixture


class IdOut(Schema):
    id: int


class KeyOut(Schema):
    key: str


class SlugOut(Schema):
    slug: str


@pytest.mark.django_db
def test_a_row_outside_of_the_listings_queryset_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    first, second = Product.objects.order_by("id")[:2]
    rows = Product.objects.filter(pk__gt=first.pk)
    item = Listing("later", rows, ProductOut, AccessPath("id")).one("product_id")
    request = RequestFactory().get("/", {"fields": "id"})
    assert asyncio.run(item.respond(request, second.pk)).content == b'{"id":%d}' % second.pk
    with pytest.raises(Http404):
        asyncio.run(item.respond(request, first.pk))


def test_whether_a_list_has_more_comes_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    rows = Order.objects.annotate(title=Concat(Value("Order "), "number"))
    orders = Listing("short", rows, OrderOut, AccessPath("id"), on_request=("lines", "tags"))
    assert {*orders.fields} - {*orders.default_fields} == {"lines", "lines_more", "tags"}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (Product.objects.all()[:9], "no slice"),
        (Product.objects.union(Product.objects.all()), "no union"),
        (Product.objects.distinct("low_price"), r"no distinct\(fields\)"),
        (Product.objects.annotate(place=Window(Rank(), order_by="id")), "no window"),
        (Product.objects.alias(place=Window(Rank(), order_by="id")).filter(place=1), "no window"),
    ],
)
def test_rows_that_depend_on_the_page_are_refused(rows: Any, reason: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=reason):
        Listing("odd", rows, ProductOut, AccessPath("id"))


def test_a_filter_of_several_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document and a refusal name each sort that serves it, once, with what it means there."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    paths = (
        AccessPath("time_created", category=equals("category", by="slug"), least=at_least()),
        AccessPath("id", category=equals("category", by="slug")),
        AccessPath("id", category=equals("category", by="slug"), sold=equals("sold_qty")),
        AccessPath("low_price", price=at_least()),
        AccessPath("high_price", price=at_least()),
    )
    listing = Listing("several", Product.objects.all(), ProductOut, *paths)
    extra = describe_list(listing)["openapi_extra"]
    said = {each["name"]: each for each in extra["parameters"]}
    assert said["category"]["description"] == (
        "Filter: only those of this category, named by its slug. Served with sort `[-]time_created` or `[-]id`."
    )
    assert said["price"]["description"] == (
        "Filter: low_price at or above this value. Served with sort `[-]low_price`. "
        "Filter: high_price at or above this value. Served with sort `[-]high_price`."
    )
    sorts = [sign + path.sort for path in (*paths[:2], *paths[3:]) for sign in ("", "-")]
    assert said["sort"]["schema"]["enum"] == sorts
    with pytest.raises(Problem) as refusal:
        listing.canonical_query("sort=low_price&category=a")
    assert [(fault.parameter, fault.detail) for fault in refusal.value.errors or ()] == [
        ("category", "is served with sort [-]time_created or [-]id"),
        ("sort", "serves other filters than these"),
    ]
    assert listing.canonical_query("sort=-id&category=a") == "category=a&sort=-id"


def test_columns_are_documented_as_they_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])

    class NumbersOut(Schema):
        id: Annotated[int, Field(json_schema_extra={"x-unit": "one"})]
        big: Annotated[
            int, PlainSerializer(str, return_type=str), Field(description="A text.", examples=["7"])
        ]

    listing = Listing("numbers", Everything.objects.all(), NumbersOut, AccessPath("id"))
    schema = describe_list(listing)["response"].model_json_schema(mode="serialization")
    columns = schema["$defs"]["NumbersColumns"]["properties"]
    assert columns["id"]["items"] == {"type": "integer", "x-unit": "one"}
    assert columns["big"]["items"] == {"type": "string", "description": "A text.", "examples": ["7"]}


def test_a_filter_has_one_type() -> None:
    paths = (
        AccessPath("time_created", category=equals("category", by="slug")),
        AccessPath("id", category=equals("category", by="id")),
    )
    with pytest.raises(
        ImproperlyConfigured, match=r"filter category of two .* sort id than with time_created"
    ):
        Listing("two", Product.objects.all(), ProductOut, *paths)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("model", "schema", "held", "beyond"),
    [
        (Narrow, IdOut, 2**15 - 1, [2**15, -(2**15) - 1, 2**63, 10**400]),
        (Everything, IdOut, 2**63 - 1, [2**63, -(2**63) - 1, "x", "1.5", ""]),
        (Label, KeyOut, "a" * 50, ["a" * 51, "a\0", ""]),
        (Topic, SlugOut, "größe", ["größe!", "ö" * 51, ""]),
    ],
)
def test_a_key_that_its_column_cannot_hold_is_not_found(
    monkeypatch: pytest.MonkeyPatch, model: Any, schema: type[Schema], held: Any, beyond: Any
) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    (name,) = schema.model_fields
    row = model.objects.create(**{name: held} | ({"rank": 1} if model is Label else {}))
    item = Listing("keys", model.objects.all(), schema, AccessPath(name)).one("key")
    request = RequestFactory().get("/")
    respond = async_to_sync(item.respond)  # on this thread's connection, where the tables are
    for key in (held, str(held)):
        assert respond(request, key).content == orjson.dumps({name: row.pk})
    for key in beyond:
        with pytest.raises(Http404):
            respond(request, key)


class BadgeOut(Schema):
    rank: int
    name: Annotated[str, Field(alias="label_id")]


class StickerOut(Schema):
    rank: int
    name: Annotated[str, Field(alias="label_ptr_id")]


def page_of(listing: Listing, url: str) -> str:
    async def respond() -> str:
        return (await listing.respond(RequestFactory().get(url))).content.decode()

    return async_to_sync(respond)()


class VoucherOut(Schema):
    id: int
    code: str
    details: Any


@pytest.mark.django_db
@pytest.mark.parametrize(
    "document", ["1e400", "9" * 400, "[" * 1500 + "]" * 1500], ids=["1e400", "9s", "deep"]
)
def test_a_document_that_no_reader_takes_has_neighbours(
    monkeypatch: pytest.MonkeyPatch, document: str
) -> None:
    """Postgres holds it, and a cursor is made of the row's key alone."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    for at in range(3):
        Voucher.objects.create(code=f"odd-{at}", percent=at, category_id=1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE shop_voucher SET details = %s::jsonb WHERE code LIKE 'odd-%%'", [document])
    rows = Voucher.objects.filter(code__startswith="odd-")
    listing = Listing("odd", rows, VoucherOut, AccessPath("code"))

    first = page_of(listing, "/?limit=1")
    url = first.partition('"next":"')[2].partition('"')[0]
    assert '"code":"odd-0"' in first
    assert '"code":"odd-1"' in page_of(listing, url)


class Computed(Spelled):
    code = models.SlugField(unique=True)
    raw = models.TextField()
    details = models.GeneratedField(
        expression=Cast("raw", models.JSONField()), output_field=models.JSONField(), db_persist=True
    )

    class Meta:
        app_label = "spelled"


@pytest.mark.django_db
def test_a_document_that_postgres_computes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Computed)
    for at in range(2):
        Computed.objects.create(code=f"odd-{at}", raw="1e400")
    first = page_of(Listing("computed", Computed.objects.all(), VoucherOut, AccessPath("code")), "/?limit=1")
    assert '"code":"odd-0"' in first
    assert '"next":"' in first


@pytest.mark.django_db
def test_a_cursor_of_a_release_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key has another number of parts."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    listing = Listing("ids", Product.objects.all(), IdOut, AccessPath("id"))
    text = sign(Cursor(before=False, key=("1", "2")), b"ids&id")
    with pytest.raises(Problem, match="as it was before") as caught:
        page_of(listing, f"/?cursor={text}")
    assert (caught.value.status, caught.value.code) == (422, "invalid_cursor")


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("model", "schema", "sort", "order"),
    [
        (Badge, BadgeOut, "rank", ["b", "c", "a"]),
        (Badge, BadgeOut, "label", ["a", "b", "c"]),
        (Badge, BadgeOut, "label_id", ["a", "b", "c"]),
        (Sticker, StickerOut, "rank", ["b", "c", "a"]),
    ],
)
def test_pages_by_a_key_that_is_a_relation(
    monkeypatch: pytest.MonkeyPatch, model: Any, schema: type[Schema], sort: str, order: list[str]
) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    for name, rank in {"b": 1, "c": 1, "a": 2}.items():
        if model is Badge:
            Badge.objects.create(label=Label.objects.create(key=name, rank=0), rank=rank)
        else:
            Sticker.objects.create(key=name, rank=rank)
    path = AccessPath(sort, least=at_least())
    listing = Listing("related", model.objects.all(), schema, path)

    async def walk(url: str) -> list[Any]:
        found = []
        while url:
            page = orjson.loads((await listing.respond(RequestFactory().get(url))).content)
            found += [row["name"] for row in page["results"]]
            url = page["next"]
        return found

    names = async_to_sync(walk)
    assert names("/?limit=1") == order
    assert names(f"/?limit=1&sort=-{sort}") == order[::-1]
    assert names(f"/?limit=1&least={2 if sort == 'rank' else 'c'}") == order[-1:]
    assert model is Sticker or not [*check_path(listing, path)]  # of a sticker, the label has the rank
    row = async_to_sync(listing.one("key").respond)(RequestFactory().get("/"), "b").content
    assert orjson.loads(row)["name"] == "b"


def test_a_key_that_is_a_relation_has_its_targets_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    item = Listing("stickers", Sticker.objects.all(), KeyOut, AccessPath("key")).one("key")
    assert item.key_type.schema["maxLength"] == 50
