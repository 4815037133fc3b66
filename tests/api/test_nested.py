"""Orders with their lines, tags and voucher: lists and details over HTTP, in one statement each."""

import re
from collections.abc import Iterator
from typing import Annotated, Any

import httpx
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from ninja import Schema
from pydantic import Field

from api import AccessPath, Children, Listing, Writes
from ops.postgres.compiled import MAX_QUICK_ROWS
from tests.service import Service, serve
from tests.shop.models import Category, Order, OrderLine, Product, Tag, Voucher
from tests.shop.queries import CATEGORIES, ORDER, ORDER_LINES, ORDERS
from tests.spare import Database
from tests.wiretap import Wiretap

LIST = "/api/orders"
ALL = ["id", "number", "title", "placed", "paid", "voucher", "tags", "lines", "lines_more"]


class OrderId(Schema):
    id: int


def get(api: httpx.Client, url: str) -> Any:
    response = api.get(url)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    "url",
    [LIST, f"{LIST}/7", f"{LIST}?layout=columns&fields=lines.product.category", "/api/order-lines?order=7"],
)
def test_one_statement(api: httpx.Client, wiretap: Wiretap, url: str) -> None:
    api.get(url)
    wiretap.clear()
    assert api.get(url).status_code == 200
    assert wiretap.executions == 1


def test_a_list_has_the_details(api: httpx.Client) -> None:
    page = get(api, LIST)
    assert [list(order) for order in page["results"]] == [ALL] * 9
    assert [len(order["lines"]) for order in page["results"]] == [0, 1, 2, 3, 4, 5, 5, 5, 5]
    assert [order["lines_more"] for order in page["results"]] == [False] * 6 + [True] * 3
    assert [order["voucher"] is None for order in page["results"]] == [False, True] * 4 + [False]
    assert page["results"] == [get(api, f"{LIST}/{order['id']}") for order in page["results"]]


def test_pages_follow_each_other(api: httpx.Client) -> None:
    url, seen = f"{LIST}?limit=2&fields=lines,id", []
    while url:
        page = get(api, url)
        seen += [order["id"] for order in page["results"]]
        url = page["next"]
    assert seen == sorted(seen)
    assert len(seen) == 9
    last = get(api, f"{LIST}?limit=4&sort=-id")
    assert [order["id"] for order in last["results"]] == seen[:-5:-1]
    assert get(api, get(api, last["next"])["previous"]) == last


@pytest.mark.parametrize(
    ("asked", "carried", "answered"),
    [
        ("voucher.code,id", "id,voucher.code", {"id": 7, "voucher": {"code": "seeded"}}),
        ("paid.currency,paid.amount", "paid", {"paid": {"amount": "0.00", "currency": "EUR"}}),
        ("paid.amount,paid", "paid", {"paid": {"amount": "0.00", "currency": "EUR"}}),
        ("tags.slug", "tags", {"tags": [{"slug": "gift"}]}),
        (
            "voucher.category.slug,voucher.code",
            "voucher.code,voucher.category.slug",
            {"voucher": {"code": "seeded", "category": {"slug": "art"}}},
        ),
        ("lines.position", "lines.position", {"lines": [{"position": at} for at in range(1, 6)]}),
        ("lines_more,title", "title,lines_more", {"title": "Order 2020-000007", "lines_more": True}),
    ],
)
def test_members_have_one_spelling(api: httpx.Client, asked: str, carried: str, answered: Any) -> None:
    assert get(api, f"{LIST}/7?fields={asked}") == answered
    page = get(api, f"{LIST}?limit=7&fields={asked}")
    assert page["results"][6] == answered
    assert f"&fields={carried}&" in page["next"]
    canonical = f"fields={carried}"
    assert ORDERS.canonical_query(f"fields={asked}") == canonical
    assert ORDER.canonical_query(f"fields={asked}") == canonical


@pytest.mark.parametrize("fields", [ALL, ["lines.product.category.slug", "voucher.category", "paid.amount"]])
def test_columns_are_the_rows_transposed(api: httpx.Client, fields: list[str]) -> None:
    query = f"{LIST}?limit=4&fields={','.join(fields)}"
    rows, columns = get(api, query)["results"], get(api, f"{query}&layout=columns")
    assert columns["results"] == {name: [row[name] for row in rows] for name in rows[0]}
    assert columns["next"]


@pytest.mark.parametrize(
    "name", ["lines.x", "id.x", "lines.product.x", "voucher.", ".code", "voucher.category.slug.x", "products"]
)
def test_unknown_members(refused: Any, name: str) -> None:
    for url in (LIST, f"{LIST}/7"):
        (fault,) = refused(422, f"{url}?fields=id,{name}")["errors"]
        assert (fault["parameter"], fault["code"]) == ("fields", "not_a_choice")


def test_the_document_has_the_members(api: httpx.Client) -> None:
    document = get(api, "/api/openapi.json")
    (fields,) = [
        each["schema"]
        for each in document["paths"][LIST]["get"]["parameters"]
        if each["name"] == "fields"
    ]  # fmt: skip
    for text in (*ALL, "lines.product.category.slug,paid.amount", "voucher.category"):
        assert re.search(fields["pattern"], text)
    for text in ("linesXposition", "lines.", "paid.code"):
        assert not re.search(fields["pattern"], text)
    schemas = document["components"]["schemas"]
    for name in ("Order", "LineInOrder", "ProductInLine", "Category", "Payment", "VoucherInOrder"):
        assert "required" not in schemas[name]  # `fields` may leave out any
    assert schemas["Order"]["properties"]["lines"]["maxItems"] == 5


@pytest.fixture
def line(api: httpx.Client) -> Iterator[Any]:
    """A line of the first order, and its URL."""
    posted = api.post("/api/order-lines", json={"order_id": 1, "position": 1, "product_id": 2})
    assert posted.status_code == 201, posted.text
    yield posted
    assert api.delete(posted.headers["location"]).status_code == 204


def test_a_write_answers_objects(api: httpx.Client, line: httpx.Response) -> None:
    """The bytes of a GET, whose tag If-Match takes."""
    url = line.headers["location"]
    assert line.json()["product"]["category"]["slug"] == "beauty"
    assert api.get(url).content == line.content
    headers = {"If-Match": api.get(url).headers["etag"]}
    changed = api.patch(url, json={"product_id": 3}, headers=headers)
    assert changed.status_code == 200
    assert changed.json()["product"]["category"]["slug"] == "books"
    assert api.get(url).content == changed.content
    assert api.patch(url, json={"quantity": 3}, headers=headers).status_code == 412
    answer = api.patch(url, json={"product": {"id": 1}})
    assert [(e["parameter"], e["code"]) for e in answer.json()["errors"]] == [("product", "unknown")]


def test_a_page_that_may_hold_many_rows_has_a_connection_of_its_own() -> None:
    def is_quick(listing: Listing, query: str) -> bool:
        return listing._read(query).rows.statement.quick

    assert is_quick(CATEGORIES, "limit=1000")
    assert is_quick(ORDERS, "limit=100")
    assert 101 * 16 <= MAX_QUICK_ROWS < 1001 * 16
    assert not is_quick(ORDERS, "limit=1000")
    assert is_quick(ORDERS, "limit=1000&fields=id,voucher")


def test_lists_beside_each_other_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    class ManyOut(Schema):
        id: int
        orders: Annotated[list[OrderId], Children(limit=600)]
        again: Annotated[list[OrderId], Children(limit=600), Field(alias="orders")]

    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    listing = Listing("many", Tag.objects.all(), ManyOut, AccessPath("id"))
    for layout in ("rows", "columns"):
        assert listing._read(f"limit=1&layout={layout}&fields=id,orders").rows.statement.quick
        assert not listing._read(f"limit=1&layout={layout}").rows.statement.quick
    assert listing.compile_item(("id",)).statement.quick


def test_a_row_that_may_hold_many_others_has_a_connection_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class LongOut(Schema):
        id: int
        orders: Annotated[list[OrderId], Children(limit=10_000)]  # the most

    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    listing = Listing("longest", Tag.objects.all(), LongOut, AccessPath("id"))
    assert not listing.compile_item(listing.fields).statement.quick


def test_a_page_of_long_lists_has_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class LongOut(Schema):
        id: int
        orders: Annotated[list[OrderId], Children(limit=9_999)]

    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    listing = Listing("long", Tag.objects.all(), LongOut, AccessPath("id"))
    assert listing.parameter_types["limit"].schema["maximum"] == listing.default_limit == 10
    assert ORDERS.parameter_types["limit"].schema["maximum"] == 1000


def test_what_an_answer_depends_on() -> None:
    through: Any = Order.tags.through
    others = {OrderLine, Product, Category, Voucher, Tag, through}
    assert {each.model for each in ORDERS.depends_on} == {Order, *others}
    assert [each.model for each in ORDER.depends_on if each.parameter] == [Order]
    assert {each.model for each in ORDER_LINES.depends_on} == {OrderLine, Product, Category, Order}


def test_a_write_cannot_answer_an_annotation() -> None:
    with pytest.raises(ImproperlyConfigured, match="OrderOut: a write cannot answer title, an annotation"):
        Writes(ORDER)


@pytest.fixture(scope="module")
def caching(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    name = str(settings.DATABASES["default"]["NAME"])
    environment = {
        "PAGE_CACHE": "on",
        "CACHE_PREFIX": f"test-nested-{name}",
        "DATABASE_URL": Database(name).url,
    }
    with serve(environment, tmp_path_factory.mktemp("caching")) as running:
        yield running


def cached(api: httpx.Client, url: str) -> Any:
    """The answer, which is in the cache from now on."""
    for _ in range(100):
        if "hit" in (answer := api.get(url)).headers["cache-status"]:
            return answer.json()
    raise AssertionError("it is not cached")


def test_a_childs_write_drops_its_parents_answers(caching: Service) -> None:
    """A line that comes, that moves to another order, and that goes."""
    api = caching.client

    def counts() -> list[int]:
        details = [len(cached(api, f"{LIST}/{order}")["lines"]) for order in (1, 2)]
        assert [len(order["lines"]) for order in cached(api, f"{LIST}?limit=2")["results"]] == details
        return details

    assert counts() == [0, 1]
    url = api.post("/api/order-lines", json={"order_id": 1, "position": 7, "product_id": 2}).headers[
        "location"
    ]
    assert counts() == [1, 1]
    assert api.patch(url, json={"order_id": 2}).status_code == 200
    assert counts() == [0, 2]
    assert api.delete(url).status_code == 204
    assert counts() == [0, 1]
