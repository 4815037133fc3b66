# ruff: noqa: DJ008  # no models for people
"""The arguments of the decorator, and the tags that follow."""

import datetime
import uuid
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.db.models import Exists, OuterRef, Subquery
from django.test.utils import isolate_apps
from django.urls import get_resolver
from ninja import Schema

from api.cache.policy import (
    ANY,
    POLICIES,
    Dependency,
    Endpoint,
    Uncacheable,
    cached,
    lineage,
    one,
    policy_of,
    tag,
)
from api.reads.access import AccessPath, equals
from api.reads.listing import Listing
from ops.checks import views
from tests.api.cache.harness import policy
from tests.shop.models import Category, Product, Tag
from tests.shop.queries import PRODUCT_STATS, PRODUCTS
from tests.shop.schemas import ProductOut

RIGHT: dict[str, Any] = {"fresh": 1, "stale": 0, "depends_on": [Product]}


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test {uuid.uuid4()}"
    yield name
    POLICIES.pop(name, None)


def view() -> None: ...


def test_decorated(name: str) -> None:
    options = {"fresh": 2.5, "stale": 7, "depends_on": [Category, one(Product, "id")]}
    decorated = cached(name, **options)(lambda: 1)  # type: ignore[arg-type]
    policy = policy_of(decorated)
    assert policy
    assert POLICIES[name] is policy
    assert (policy.fresh, policy.stale) == (2.5, 7)
    assert policy.cache_control == b"public, max-age=2, stale-while-revalidate=7, stale-if-error=7"
    assert policy.tags({"id": 7}) == ("shop.category", "shop.product:7", "shop.product:*")
    assert policy_of(view) is None


@pytest.mark.parametrize(
    "wrong", [{"fresh": 0}, {"fresh": -1}, {"stale": -1}, {"depends_on": []}, {"cost": -1}, {"cost": 0.0001}]
)
def test_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=name):
        cached(name, **RIGHT | wrong)
    assert name not in POLICIES


@pytest.mark.parametrize("cost", [0, 0.001, 2])
def test_cost(name: str, cost: float) -> None:
    policy = policy_of(cached(name, **RIGHT, cost=cost)(lambda: 1))
    assert policy
    assert policy.cost == cost


def test_by_age(name: str) -> None:
    """Only if it is said: an endpoint that names no dependency has forgotten it."""
    policy = policy_of(cached(name, fresh=60, stale=86400, depends_on=None)(lambda: 1))
    assert policy
    assert (policy.goes_by_age, policy.tags({})) == (True, ())


def test_statistics_bring_their_cost(name: str) -> None:
    policy = policy_of(cached(PRODUCT_STATS, name=name, fresh=60, stale=86400)(lambda: 1))
    assert policy
    assert (policy.goes_by_age, policy.cost) == (True, PRODUCT_STATS.cost)
    policy = policy_of(
        cached(PRODUCT_STATS, name=f"{name} 2", fresh=1, stale=1, depends_on=[Product])(lambda: 1)
    )
    POLICIES.pop(f"{name} 2")
    assert policy
    assert not policy.goes_by_age


def test_a_name_is_used_once(name: str) -> None:
    first = policy_of(cached(name, **RIGHT)(lambda: 1))
    with pytest.raises(ImproperlyConfigured, match=name):
        cached(name, **RIGHT)
    assert POLICIES[name] is first


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("year=2020", "year=2020"),
        ("by=a&year=2020", "year=2020&by=a"),  # in the order of the declaration
        ("_=1&year=2020&utm_source=x", "year=2020"),
        ("%79ear=%32020&&", "year=2020"),
        ("by=a+b%20c%2F%C3%A9", "by=a+b+c%2F%C3%A9"),
        ("by=", "by="),
        ("by", "by="),
        ("by=%FF", "by=%EF%BF%BD"),  # as Django decodes it
        ("BY=a", ""),
    ],
)
def test_canonical_query(query: str, canonical: str) -> None:
    endpoint = Endpoint("page", [], ("year", "by"))
    assert endpoint.canonical_query(query) == canonical
    assert endpoint.canonical_query(canonical) == canonical


def test_a_parameter_twice_has_no_canonical_query() -> None:
    endpoint = Endpoint("page", [], ("year",))
    assert endpoint.canonical_query("other=1&other=2") == ""
    for twice in ("year=1&year=1", "year=1&%79ear=2", "year&year"):
        with pytest.raises(Uncacheable):
            endpoint.canonical_query(twice)


def test_a_listing_says_what_it_depends_on(name: str) -> None:
    policy = policy_of(cached(PRODUCTS, name=name, fresh=1, stale=1)(view))
    assert policy
    assert policy.tags({}) == ("shop.product", "shop.category")
    one_row = policy_of(cached(PRODUCTS.one("product_id"), name=f"{name} row", fresh=1, stale=1)(view))
    del POLICIES[f"{name} row"]
    assert one_row
    assert one_row.tags({"product_id": 7}) == (*("shop.product:7", "shop.product:*", "shop.category"),)
    with pytest.raises(ImproperlyConfigured, match="own parameters"):
        cached(PRODUCTS, name=f"{name} other", fresh=1, stale=1, parameters=["year"])


class Bare(Schema):
    id: int
    time_created: datetime.datetime


RELATED: dict[str, tuple[Any, Any, AccessPath]] = {
    "nothing": (Product.objects.all(), Bare, AccessPath("id")),
    "a shown field": (Product.objects.all(), ProductOut, AccessPath("id")),
    "a filter": (Product.objects.all(), Bare, AccessPath("id", category=equals("category", by="slug"))),
    "its rows": (Product.objects.filter(category__slug="garden"), Bare, AccessPath("id")),
    "a subquery": (
        Product.objects.filter(category_id__in=Category.objects.filter(slug="a").values("pk")),
        *(Bare, AccessPath("id")),
    ),
    "exists": (
        Product.objects.filter(Exists(Category.objects.filter(pk=OuterRef("category_id")))),
        *(Bare, AccessPath("id")),
    ),
    "an annotation": (
        Product.objects.annotate(n=Subquery(Category.objects.values("name")[:1])),
        *(Bare, AccessPath("id")),
    ),
}


@pytest.mark.parametrize("related", RELATED)
@pytest.mark.django_db
def test_what_a_listing_reads_it_depends_on(related: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    rows, schema, path = RELATED[related]
    models = [dependency.model for dependency in Listing("test", rows, schema, path).depends_on]
    assert models == ([Product] if related == "nothing" else [Product, Category])


class Slug(Schema):
    id: int
    slug: str


class Leaf(Slug):
    parent: Slug | None


class Root(Slug):
    children: list[Slug]


@pytest.mark.parametrize(("schema", "others"), [(Slug, False), (Leaf, True), (Root, True)])
def test_a_row_that_shows_others_of_its_table_depends_on_all(
    schema: type[Schema], *, others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])
    listing = Listing("test", Tag.objects.all(), schema, AccessPath("id"))
    assert [*listing.one("tag_id").depends_on] == [Dependency(Tag, "" if others else "tag_id")]


def test_a_policy_is_not_changed_by_requests() -> None:
    with pytest.raises(FrozenInstanceError):
        policy().name = "other"  # type: ignore[misc]


def test_each_tag_once() -> None:
    dependencies = (one(Product, "a"), one(Product, "b"), Dependency(Category), Dependency(Category))
    tags = policy(depends_on=dependencies).tags({"a": 1, "b": 2})
    assert tags == ("shop.product:1", "shop.product:*", "shop.product:2", "shop.category")


def test_tags_of_a_row_have_one_spelling() -> None:
    assert tag(Product) == "shop.product"
    assert tag(Product, ANY) == "shop.product:*"
    assert tag(Product, 7) == tag(Product, "7") == tag(Product, "007") == "shop.product:7"
    with pytest.raises(ValidationError):
        tag(Product, "seven")


@isolate_apps("tests.shop")
def test_tags_of_uuids() -> None:
    class Thing(models.Model):
        id = models.UUIDField(primary_key=True)

        class Meta:
            app_label = "shop"

    key = uuid.uuid4()
    assert tag(Thing, key) == tag(Thing, str(key).upper()) == tag(Thing, key.hex)


@isolate_apps("tests.shop")
def test_rows_of_proxies_and_of_heirs_are_rows_of_what_they_come_from() -> None:
    class Proxy(Product):
        class Meta:
            app_label = "shop"
            proxy = True

    class Heir(Category):
        class Meta:
            app_label = "shop"

    assert [*lineage(Product)] == [*lineage(Proxy)] == [Product]
    assert [*lineage(Heir)] == [Heir, Category]
    assert policy(depends_on=(one(Heir, "id"),)).tags({"id": 3}) == (
        *("shop.heir:3", "shop.heir:*"),
        *("shop.category:3", "shop.category:*"),
    )


@pytest.mark.parametrize(
    "routes",
    [
        *(
            "tests.shop.urls",
            "tests.api.cache.views",
            "tests.api.cache.test_endpoints",
            "tests.api.test_checks",
        ),
        *("tests.e2e.cache.urls", "tests.e2e.security.urls"),
    ],
)
def test_resources_may_have_any_name(routes: str) -> None:
    """The names of all pages in the tests begin with `tests.`: a test imports a service's own routes beside them."""
    policies = [policy for _, view in views._routes(get_resolver(routes)) if (policy := policy_of(view))]
    assert policies
    assert [policy.name for policy in policies if not policy.name.startswith("tests.")] == []
