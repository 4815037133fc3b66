"""Writes of resources that the shop does not serve: what is refused when they are declared, and what works."""

from collections.abc import Callable
from typing import Annotated, Any

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpResponse
from django.test import RequestFactory
from ninja import Schema
from pydantic import Field

from api import (
    AccessPath,
    BulkWrites,
    Children,
    Import,
    Listing,
    Problem,
    Timestamp,
    Writes,
    describe_delete,
    describe_delete_many,
)
from tests.ops.postgres.conftest import tables
from tests.ops.postgres.models import Badge, Label
from tests.shop.commands import CATEGORY_WRITES
from tests.shop.models import Order, Tag
from tests.shop.schemas import TagOut

__all__ = ["tables"]  # a fixture

pytestmark = pytest.mark.django_db


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
    moment = "2030-01-01T00:00:00.000000+00:00"
    created = orjson.loads(send(writes.create, {"number": "t-1", "placed": moment}).content)
    assert created == {"id": created["id"], "number": "t-1", "placed": moment, "voucher_id": None, "tags": []}
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
        send(writes.create, {"number": "t-3", "placed": moment})
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
