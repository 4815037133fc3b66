# ruff: noqa: DJ008  # no models for people
"""What a decorator may say, and which tags follow."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.test.utils import isolate_apps

from api.cache.policy import ANY, POLICIES, Dependency, Policy, cached, lineage, one, policy_of, tag
from products.models import Category, Product
from tests.api.cache.harness import policy

RIGHT: dict[str, Any] = {"key": str, "fresh": 1, "stale": 0, "depends_on": [Product]}


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test {uuid.uuid4()}"
    yield name
    POLICIES.pop(name, None)


def view() -> None: ...


def test_decorated(name: str) -> None:
    options = {"key": str.upper, "fresh": 2.5, "stale": 7, "depends_on": [Category, one(Product, "id")]}
    decorated = cached(name, **options)(lambda: 1)  # type: ignore[arg-type]
    policy = policy_of(decorated)
    assert policy
    assert POLICIES[name] is policy
    assert (policy.fresh, policy.stale) == (2.5, 7)
    assert policy.cache_control == b"public, max-age=2, stale-while-revalidate=7, stale-if-error=7"
    assert policy.tags({"id": 7}) == ("products.category", "products.product:7", "products.product:*")
    assert policy_of(view) is None


@pytest.mark.parametrize("wrong", [{"fresh": 0}, {"fresh": -1}, {"stale": -1}, {"depends_on": []}])
def test_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match=name):
        cached(name, **RIGHT | wrong)
    assert name not in POLICIES


def test_a_name_is_used_once(name: str) -> None:
    first = policy_of(cached(name, **RIGHT)(lambda: 1))
    with pytest.raises(ImproperlyConfigured, match=name):
        cached(name, **RIGHT)
    assert POLICIES[name] is first


def test_a_row_needs_its_parameter() -> None:
    made = Policy("page", str, 1, 1, (one(Product, "product_id"), Dependency(Category)))
    made.fits(["product_id", "other"])
    with pytest.raises(ImproperlyConfigured, match="product_id"):
        made.fits(["other"])


def test_keys_hold_the_path_and_the_query() -> None:
    made = policy("page")
    assert made.entry({}, "a=1") == "page?a=1"
    assert made.entry({"a": 7, "b": "x/y?z"}, "") == "page/7/x%2Fy%3Fz?"
    assert made.entry({"a": "x/y"}, "") != made.entry({"a": "x", "b": "y"}, "")


def test_each_tag_once() -> None:
    dependencies = (one(Product, "a"), one(Product, "b"), Dependency(Category), Dependency(Category))
    tags = policy(depends_on=dependencies).tags({"a": 1, "b": 2})
    assert tags == ("products.product:1", "products.product:*", "products.product:2", "products.category")


def test_tags_of_a_row_have_one_spelling() -> None:
    assert tag(Product) == "products.product"
    assert tag(Product, ANY) == "products.product:*"
    assert tag(Product, 7) == tag(Product, "7") == tag(Product, "007") == "products.product:7"
    with pytest.raises(ValidationError):
        tag(Product, "seven")


@isolate_apps("products")
def test_tags_of_uuids() -> None:
    class Thing(models.Model):
        id = models.UUIDField(primary_key=True)

        class Meta:
            app_label = "products"

    key = uuid.uuid4()
    assert tag(Thing, key) == tag(Thing, str(key).upper()) == tag(Thing, key.hex)


@isolate_apps("products")
def test_rows_of_proxies_and_of_heirs_are_rows_of_what_they_come_from() -> None:
    class Proxy(Product):
        class Meta:
            app_label = "products"
            proxy = True

    class Heir(Category):
        class Meta:
            app_label = "products"

    assert [*lineage(Product)] == [*lineage(Proxy)] == [Product]
    assert [*lineage(Heir)] == [Heir, Category]
    assert policy(depends_on=(one(Heir, "id"),)).tags({"id": 3}) == (
        *("products.heir:3", "products.heir:*"),
        *("products.category:3", "products.category:*"),
    )
