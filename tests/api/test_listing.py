"""Listings beside the sample's: rows of a queryset with a condition, and primary keys of other types."""

import asyncio
from typing import Any

import orjson
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Value, Window
from django.db.models.functions import Concat, Rank
from django.http import Http404
from django.test import RequestFactory
from ninja import Schema

from api import AccessPath, Listing
from tests.ops.postgres.conftest import tables
from tests.ops.postgres.models import Everything, Label, Narrow, Sticker
from tests.shop.models import Order, Product
from tests.shop.schemas import OrderOut, ProductOut

__all__ = ["tables"]  # a fixture


class IdOut(Schema):
    id: int


class KeyOut(Schema):
    key: str


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


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    ("model", "schema", "held", "beyond"),
    [
        (Narrow, IdOut, 2**15 - 1, [2**15, -(2**15) - 1, 2**63, 10**400]),
        (Everything, IdOut, 2**63 - 1, [2**63, -(2**63) - 1, "x", "1.5", ""]),
        (Label, KeyOut, "a" * 50, ["a" * 51, "a\0", ""]),
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


def test_a_key_that_is_a_relation_has_its_targets_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    item = Listing("stickers", Sticker.objects.all(), KeyOut, AccessPath("key")).one("key")
    assert item.key_type.schema["maxLength"] == 50
