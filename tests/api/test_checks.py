"""The system checks of the API name an access path without an index, and a cached listing without documentation."""

import re
from typing import Any

import pytest
from django.core.checks import run_checks
from django.db.models import UniqueConstraint
from django.db.models.functions import Lower
from django.http import HttpRequest
from django.urls import path
from ninja import Router, Schema
from pytest_django import Settings

from api import AccessPath, Api, Listing, cached, describe_item, describe_list, describe_stats
from api.checks import check_lists, check_path
from ops.tools.embedded.paths import ROOT
from tests.ops.postgres.models import Badge, Label
from tests.shop.models import OrderLine, Product
from tests.shop.queries import ORDERS, PRODUCT, PRODUCT_STATS, PRODUCTS
from tests.shop.schemas import ProductOut


class BadgeOut(Schema):
    label_id: str
    rank: int


TIMES: dict[str, Any] = {"fresh": 1, "stale": 1}
router = Router()


@router.get("/list", **describe_list(PRODUCTS))
@cached(PRODUCTS, name="tests.checked list", **TIMES)
async def documented(request: HttpRequest) -> Any: ...


@router.get("/list-without")
@cached(PRODUCTS, name="tests.checked list without", **TIMES)
async def undocumented(request: HttpRequest, limit: int = 1) -> Any: ...


@router.get("/row/{id:product_id}", **describe_item(PRODUCTS))
@cached(PRODUCT, name="tests.checked row", **TIMES)
async def documented_row(request: HttpRequest, product_id: int) -> Any: ...


@router.get("/row-without/{id:product_id}")
@cached(PRODUCT, name="tests.checked row without", **TIMES)
async def undocumented_row(request: HttpRequest, product_id: int) -> Any: ...


@router.get("/stats", **describe_stats(PRODUCT_STATS))
@cached(PRODUCT_STATS, name="tests.checked stats", **TIMES)
async def documented_stats(request: HttpRequest) -> Any: ...


@router.get("/stats-without")
@cached(PRODUCT_STATS, name="tests.checked stats without", **TIMES)
async def undocumented_stats(request: HttpRequest) -> Any: ...


@router.get("/other")
@cached("tests.checked other", depends_on=[Product], **TIMES)
async def other(request: HttpRequest, year: int = 0) -> Any: ...


api = Api(urls_namespace="test-checks")
api.add_router("", router)
urlpatterns = [path("", api.urls)]


def test_documentation(settings: Settings) -> None:
    settings.ROOT_URLCONF = __name__
    found = [message for message in run_checks() if message.id == "api.W006"]
    assert [
        (message.msg.split("'")[1], str(message.hint).split("**")[1].split("(")[0]) for message in found
    ] == [
        ("list-without", "describe_list"),
        ("row-without/<id:product_id>", "describe_item"),
        ("stats-without", "describe_stats"),
    ]
    listed = found[0].msg.partition(" of ")[0].removeprefix("The OpenAPI document lacks ").split(", ")
    assert listed == sorted({*PRODUCTS.parameters} - {"limit"})


def test_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    paths = (*PRODUCTS.paths, AccessPath("sold_qty"))
    listing = Listing("sold", Product.objects.all(), ProductOut, *paths)
    found = {each.sort: [message.id for message in check_path(listing, each)] for each in paths}
    assert found == {each.sort: [] for each in PRODUCTS.paths} | {"sold_qty": ["api.E003"]}


def test_an_index_by_unique_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    path = AccessPath("sold_qty")
    listing = Listing("sold", Product.objects.all(), ProductOut, path)
    for together, ids in (((("sold_qty", "id"),), []), ((("id", "sold_qty"),), ["api.E003"])):
        monkeypatch.setattr(Product._meta, "unique_together", together)
        assert [message.id for message in check_path(listing, path)] == ids


@pytest.mark.parametrize("sort", ["rank", "label"])
def test_each_text_of_a_key_fits_into_a_cursor(monkeypatch: pytest.MonkeyPatch, sort: str) -> None:
    """The primary key, too, which is here a relation to a row with a text."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    path = AccessPath(sort)
    listing = Listing("badges", Badge.objects.all(), BadgeOut, path)
    assert [*check_path(listing, path)] == []
    for most in (256, None):
        monkeypatch.setattr(Label._meta.pk, "max_length", most)
        (found,) = check_path(listing, path)
        assert (found.id, found.obj) == ("api.E004", Badge)
        assert "'label_id'" in found.msg


def test_a_list_needs_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [*check_lists(ORDERS)] == []
    monkeypatch.setattr(OrderLine._meta, "indexes", [])
    monkeypatch.setattr(OrderLine._meta, "constraints", [])
    (found,) = check_lists(ORDERS)
    assert (found.id, found.obj) == ("api.E007", OrderLine)
    assert "OrderOut.lines of 'tests.orders' lists rows of OrderLine by 'order'" in found.msg
    of_an_expression = UniqueConstraint(Lower("note"), name="note")
    monkeypatch.setattr(OrderLine._meta, "constraints", [of_an_expression])
    assert [message.id for message in check_lists(ORDERS)] == ["api.E007"]
    by_order = UniqueConstraint(fields=["order", "position"], name="position")
    monkeypatch.setattr(OrderLine._meta, "constraints", [of_an_expression, by_order])
    assert [*check_lists(ORDERS)] == []


def test_every_check_is_documented() -> None:
    documented = re.findall(r"^\| (api\.[EW]\d{3}) \|", (ROOT / "docs/checks.md").read_text(), re.MULTILINE)
    assert documented == sorted(re.findall(r'id="(.+)"', (ROOT / "api/checks.py").read_text()))
