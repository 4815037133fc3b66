"""Writes of resources that the shop does not serve: what is refused when they are declared, and what works."""

import re
import sys
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpRequest, HttpResponse
from django.test import RequestFactory
from ninja import Schema
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import (
    ConfigDict,
    Field,
    HttpUrl,
    IPvAnyAddress,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    ValidationError,
    create_model,
)  # fmt: skip

from api import (
    AccessPath,
    Api,
    BulkWrites,
    Children,
    Import,
    Listing,
    Problem,
    Timestamp,
    Writes,
    describe_change_many,
    describe_create,
    describe_delete,
    describe_delete_many,
)
from api.writes import inputs
from api.writes.inputs import MAX_ERRORS, MAX_VALUES
from tests.ops.postgres.conftest import tables
from tests.ops.postgres.models import Badge, Everything, Label
from tests.shop.commands import CATEGORY_WRITES
from tests.shop.models import Order, Tag
from tests.shop.schemas import TagOut

__all__ = ["tables"]  # a fixture

pytestmark = pytest.mark.django_db
MOMENT = "2020-01-01T00:00:00.000000+00:00"


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system checks do not see the listings of this module."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])


def send(endpoint: Callable[..., Any], content: Any, *key: Any) -> HttpResponse:
    """The endpoint's answer to a request with this content, on the connection of the test's transaction."""
    request = RequestFactory().post("/", orjson.dumps(content), content_type="application/json")
    answer: HttpResponse = async_to_sync(endpoint)(request, *key)
    return answer


class TaggedOrderOut(Schema):
    id: int
    number: str
    placed: Timestamp
    voucher_id: int | None
    tags: Annotated[list[TagOut], Children(order_by="slug")]


def test_all_but_the_deletion_of_rows_that_others_refer_to() -> None:
    """Of an order, the ORM deletes the lines and the rows between it and its tags."""
    rows = Order.objects.all()
    writes = Writes(Listing("tagged", rows, TaggedOrderOut, AccessPath("id")).one("order_id"))
    many = BulkWrites(writes)
    Import(writes)
    created = orjson.loads(send(writes.create, {"number": "t-1", "placed": MOMENT}).content)
    assert created == {"id": created["id"], "number": "t-1", "placed": MOMENT, "voucher_id": None, "tags": []}
    tag = Tag.objects.get(slug="express")
    rows.get(pk=created["id"]).tags.add(tag)
    changed = orjson.loads(send(writes.change, {"number": "t-2"}, created["id"]).content)
    assert changed == created | {"number": "t-2", "tags": [{"slug": "express"}]}
    [again] = orjson.loads(send(many.change, [{"id": created["id"], "number": "t-3"}]).content)
    assert again == changed | {"number": "t-3"}
    for refused in (lambda: describe_delete(writes), lambda: send(writes.delete, {}, created["id"])):
        with pytest.raises(ImproperlyConfigured, match="CASCADE of Order_tags is the ORM's own work"):
            refused()
    with pytest.raises(ImproperlyConfigured, match="CASCADE of Order_tags is the ORM's own work"):
        describe_delete_many(many)
    with pytest.raises(Problem) as conflict:
        send(writes.create, {"number": "t-3", "placed": MOMENT})
    assert conflict.value.code == "conflict"


@pytest.mark.parametrize("key", [2**63, -(2**63) - 1, 10**400, "x"])
def test_a_key_that_its_column_cannot_hold_is_not_found(key: Any) -> None:
    """As for a GET of it."""
    whole = {"slug": "none", "name": "None"}
    for way, content in (
        (CATEGORY_WRITES.change, {}),
        (CATEGORY_WRITES.replace, whole),
        (CATEGORY_WRITES.delete, {}),
    ):
        with pytest.raises(Http404):
            send(way, content, key)


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("name", ["slug", "url"])
def test_a_blank_text_is_not_validated(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As Django does it: what POST stores where the field is left out, PUT takes."""
    monkeypatch.setattr(Everything._meta.get_field(name), "blank", True)
    writes = writes_of(name, str)
    created = orjson.loads(send(writes.create, {}).content)
    assert created[name] == ""
    assert orjson.loads(send(writes.replace, created, created["id"]).content) == created
    [again] = orjson.loads(send(BulkWrites(writes).change, [created]).content)
    assert again == created
    with pytest.raises(Problem, match=name):
        send(writes.replace, {name: "a b"}, created["id"])


class LabelOut(Schema):
    key: str
    rank: int


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a-1", "a-1"),
        ("a b?c#d/50%", "a%20b%3Fc%23d%2F50%25"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("a\nb", "a%0Ab"),
    ],
)
def test_the_location_of_a_row_whose_key_is_a_text(key: str, path: str) -> None:
    writes = Writes(Listing("labels", Label.objects.all(), LabelOut, AccessPath("key")).one("key"))
    response = send(writes.create, {"key": key, "rank": 1})
    assert response["Location"] == f"//{path}"


class Shade(Enum):
    RED = "red"
    BLUE = "blue"


class Size(Enum):
    SMALL = 1


class Share(Enum):
    HALF = Decimal("0.50")


class Details(Schema):
    colour: Shade
    seen: Annotated[Timestamp | None, Field(alias="seenAt")] = None


def writes_of(name: str, kind: Any) -> Writes:
    """Of a model with a column of every kind, by a schema with one."""
    fields: dict[str, Any] = {"id": (int, ...), name: (kind, ...)}
    schema = create_model("MadeOut", __base__=Schema, **fields)
    return Writes(Listing("made", Everything.objects.all(), schema, AccessPath("id")).one("id"))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("name", "kind", "sent", "answered"),
    [
        ("char", Shade, "red", "red"),
        ("text", Shade | None, None, None),
        ("colour", Shade, "red", "red"),
        ("integer", Size | None, 1.0, 1),
        ("price", float, 12.5, 12.5),
        ("price", float | None, "12.50", 12.5),
        ("url", HttpUrl, "https://example.org/größe", "https://example.org/gr%C3%B6%C3%9Fe"),
        ("char", HttpUrl | None, "http://a.org", "http://a.org/"),
        pytest.param(
            *("address", IPvAnyAddress, "::1", "::1"),
            marks=pytest.mark.skipif(
                sys.version_info < (3, 13), reason="prints mapped addresses otherwise than Postgres"
            ),
        ),
        ("date", PastDate, "2020-01-01", "2020-01-01"),
        ("document", Details, {"colour": "red"}, {"colour": "red", "seenAt": None}),
        (
            "document",
            Details | None,
            {"colour": "blue", "seenAt": MOMENT},
            {"colour": "blue", "seenAt": MOMENT},
        ),
        ("document", list[Details], [{"colour": "red"}], [{"colour": "red", "seenAt": None}]),
        ("document", dict[str, Decimal], {"a": "1.50"}, {"a": "1.50"}),
        ("document", HttpUrl, "http://a.org", "http://a.org/"),
    ],
)
def test_what_a_schema_reads_it_writes(name: str, kind: Any, sent: Any, answered: Any) -> None:
    writes = writes_of(name, kind)
    created = orjson.loads(send(writes.create, {name: sent}).content)
    assert created[name] == answered
    assert orjson.loads(send(BulkWrites(writes).create, [{name: sent}]).content)[0][name] == answered
    replaced = send(writes.replace, {name: answered}, created["id"]).content
    assert orjson.loads(replaced) == created


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("name", "kind", "sent", "code"),
    [
        ("char", Shade, "green", "not_a_choice"),
        ("colour", Shade, "blue", "not_a_choice"),  # of the model's two, it is none
        ("url", HttpUrl, "http://a.org/" + 200 * "a", "too_long"),
        ("url", HttpUrl, None, "null"),
        ("price", float, 99999.995, "out_of_range"),
        ("char", Any, {"a": 1}, "malformed"),
        ("moment", PastDatetime, "2999-01-01T00:00:00Z", "malformed"),
        ("document", Details, {"colour": "green"}, "not_a_choice"),
    ],
)
def test_what_a_schema_refuses(name: str, kind: Any, sent: Any, code: str) -> None:
    writes = writes_of(name, kind)
    for way, content in ((writes.create, {name: sent}), (BulkWrites(writes).create, [{name: sent}])):
        with pytest.raises(Problem) as refused:
            send(way, content)
        assert (refused.value.status, [fault.code for fault in refused.value.errors or ()]) == (422, [code])


class Tagged(Schema):
    tags: list[int]
    kind: Annotated[dict[str, Any], Field({"type": "list"})]


class Exact(Schema):
    model_config = ConfigDict(extra="forbid")


LONG = [""] * (MAX_VALUES + 2)


@pytest.mark.parametrize(
    ("kind", "sent", "places", "errors"),
    [
        (list[int], LONG, [".0"], 1),
        (list[int], ["", 1, ""], [".0", ".2"], 2),
        (list[int], LONG[:5000], [f".{at}" for at in range(10)], 5000),
        (dict[str, int], {f"{at:05}": "" for at in range(MAX_VALUES + 2)}, [".00000"], 1),
        (Tagged, {"tags": LONG}, [".tags.0"], 1),
        (list[Tagged] | None, [{"tags": LONG}] * 2, [".0.tags.0"], 1),
        (tuple[int, ...], LONG, [".0"], 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_faults_of_a_long_list(
    monkeypatch: pytest.MonkeyPatch, kind: Any, sent: Any, places: list[str], errors: int
) -> None:
    """Its first one is named, since each would take memory; of a list that is not long, all are."""
    counted: list[int] = []
    problem = inputs._problem

    def count(error: ValidationError, place_of: Callable[..., str]) -> Problem:
        counted.append(error.error_count())
        return problem(error, place_of)

    monkeypatch.setattr("api.writes.inputs._problem", count)
    writes = writes_of("document", kind)
    bulk = BulkWrites(writes)
    for way, content, place in (
        (writes.create, {"document": sent}, "document"),
        (bulk.create, [{"document": sent}, {"x": 1}], "items[0].document"),
    ):
        with pytest.raises(Problem) as refused:
            send(way, content)
        found = [fault.parameter for fault in refused.value.errors or ()]
        other = ["items[1].x"] if way == bulk.create else []
        assert found == [*(place + each for each in places), *other][:10]
        assert counted.pop() == errors + len(other)
    body = orjson.dumps([{"document": sent}])
    with pytest.raises(ValidationError) as failed:
        bulk.creations.quick.validate_json(body)
    assert failed.value.error_count() == 1


def test_more_faults_than_are_named() -> None:
    """An object that takes no other members than its own has a fault for each."""
    content = {"document": {f"m{at}": 1 for at in range(MAX_ERRORS + 1)}}
    writes = writes_of("document", Exact)
    for way, sent in ((writes.create, content), (BulkWrites(writes).create, [content])):
        with pytest.raises(Problem, match=f"has {MAX_ERRORS + 1} faults") as refused:
            send(way, sent)
        assert [fault.code for fault in refused.value.errors or ()] == ["malformed"]


def test_a_long_list_is_read_as_others_are() -> None:
    """Whatever the default beside it looks like."""
    creation = writes_of("document", Tagged).creation
    for number in (1, MAX_VALUES + 2):
        body = orjson.dumps({"document": {"tags": [7] * number}})
        [found] = inputs.read(creation, body).values()
        assert (found.tags, found.kind) == ([7] * number, {"type": "list"})


@pytest.mark.usefixtures("tables")
def test_an_object_of_a_schema_is_not_merged() -> None:
    writes = writes_of("document", Details | None)
    document = {"document": {"colour": "red"}}
    key = orjson.loads(send(writes.create, document).content)["id"]
    with pytest.raises(Problem, match="cannot be merged"):
        send(writes.change, document, key)
    with pytest.raises(Problem, match="cannot be merged"):
        send(BulkWrites(writes).change, [{"id": key} | document])
    assert orjson.loads(send(writes.change, {"document": None}, key).content)["document"] is None


def test_the_document_names_what_is_within_a_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference in it is one to the whole document."""
    monkeypatch.setattr("api.ninja.APIS", [])
    api = Api(urls_namespace="declared")

    async def endpoint(request: HttpRequest) -> None: ...

    for name, kind in {"document": Details, "text": Shade | None}.items():
        writes = writes_of(name, kind)
        creating, changing = describe_create(writes), describe_change_many(BulkWrites(writes))
        api.post(f"/{name}", auth=None, operation_id=f"create {name}", **creating)(endpoint)
        api.patch(f"/{name}", auth=None, operation_id=f"change {name}", **changing)(endpoint)
    found = orjson.dumps(api.get_openapi_schema(path_prefix="/"), option=orjson.OPT_NON_STR_KEYS)
    document = orjson.loads(found)
    assert not [*OpenAPIV31SpecValidator(document).iter_errors()]
    schemas = document["components"]["schemas"]
    references = {*re.findall(r'"\$ref":"(.+?)"', found.decode())}
    assert references <= {f"#/components/schemas/{name}" for name in schemas}
    # Answers have another form of the details: their names, and moments of one width.
    assert [*schemas["Details"]["properties"]] == ["colour", "seen"]
    assert [*schemas["Details2"]["properties"]] == ["colour", "seenAt"]
    assert schemas["MadeCreation2"]["properties"]["text"]["anyOf"][0] == {
        "$ref": "#/components/schemas/Shade"
    }


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("char", Literal[Shade.RED], "<Shade.RED: 'red'> is no JSON value for spelled.Everything.char"),
        ("char", Size, "1 is no JSON value for spelled.Everything.char"),
        ("price", Share, "Decimal('0.50') is no JSON value for spelled.Everything.price"),
        ("integer", Decimal, "no JSON value for spelled.Everything.integer is a Decimal"),
        ("moment", NaiveDatetime, "no JSON value for spelled.Everything.moment is a NaiveDatetime"),
    ],
)
def test_types_that_no_content_has(name: str, kind: Any, said: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=re.escape(f"MadeOut.{name}: {said}")):
        writes_of(name, kind)


class BadgeOut(Schema):
    label_id: str
    rank: int


class NumberedOut(Schema):
    number: Annotated[int, Field(alias="id")]
    slug: str


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("rows", "schema", "values", "change"),
    [
        (Badge.objects.all(), BadgeOut, {"label_id": "a", "rank": 1}, {"rank": 2}),
        (Tag.objects.all(), NumberedOut, {"slug": "numbered"}, {"slug": "renumbered"}),
    ],
)
def test_a_client_sends_the_key_along_whatever_its_name(
    rows: Any, schema: type[Schema], values: dict[str, Any], change: dict[str, Any]
) -> None:
    Label.objects.create(key="a", rank=0)
    writes = Writes(Listing("named", rows, schema, AccessPath(rows.model._meta.pk.name)).one("key"))
    row = orjson.loads(send(writes.create, values).content)
    name = next(iter(schema.model_fields))
    for way in (writes.change, writes.replace):
        assert orjson.loads(send(way, row | change, row[name]).content) == row | change
        with pytest.raises(Problem, match=f"{name}: is the row's for good"):
            send(way, row | change | {name: "another"}, row[name])
    [again] = orjson.loads(send(BulkWrites(writes).change, [row]).content)
    assert again == row
