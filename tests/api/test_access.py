"""Access paths: the order they give, the indexes they need, and their filters as conditions."""

from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db import connection, models
from django.db.models import Q

from api.reads.access import AccessPath, at_least, at_most, below, equals, field_of
from tests.ops.postgres.models import Spelled
from tests.shop.models import Category, Product

TIME = AccessPath(
    "time_created",
    after=at_least(),
    until=at_most(),
    before=below(),
    category=equals(by="slug"),
    sold=equals("sold_qty"),
)


@pytest.mark.parametrize(
    ("path", "model", "key"),
    [
        (TIME, Product, ("time_created", "id")),
        (AccessPath("low_price"), Product, ("low_price", "id")),
        (AccessPath("id"), Product, ("id",)),
        (AccessPath("slug"), Category, ("slug",)),
        (AccessPath("name"), Category, ("name", "id")),
    ],
)
def test_key_orders_the_rows_totally(path: AccessPath, model: Any, key: tuple[str, ...]) -> None:
    assert path.key(model) == key


def test_one_index_for_each_set_of_equalities() -> None:
    assert list(TIME.indexes(Product)) == [
        ("time_created", "id"),
        ("category", "time_created", "id"),
        ("sold_qty", "time_created", "id"),
        ("category", "sold_qty", "time_created", "id"),
    ]


def test_bounds_need_no_index_of_their_own() -> None:
    assert list(AccessPath("id", least=at_least(), most=at_most()).indexes(Product)) == [("id",)]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("after", Product._meta.get_field("time_created")),
        ("category", Category._meta.get_field("slug")),
        ("sold", Product._meta.get_field("sold_qty")),
    ],
)
def test_field_whose_values_a_filter_takes(name: str, field: object) -> None:
    assert TIME.field(Product, name) == field


@pytest.mark.parametrize(
    ("name", "condition"),
    [
        ("after", Q(time_created__gte=7)),
        ("until", Q(time_created__lte=7)),
        ("before", Q(time_created__lt=7)),
        ("sold", Q(sold_qty__exact=7)),
    ],
)
def test_condition(name: str, condition: Q) -> None:
    assert TIME.condition(Product, name, 7) == condition


def test_a_related_row_is_found_without_a_join() -> None:
    sql = str(Product.objects.filter(TIME.condition(Product, "category", "garden")).query)
    assert "JOIN" not in sql
    assert '"category_id" = (SELECT' in sql


@pytest.mark.django_db
def test_a_related_row_by_its_slug() -> None:
    garden = Product.objects.filter(TIME.condition(Product, "category", "garden"))
    assert garden.count() == Product.objects.filter(category__slug="garden").count() > 0
    assert not Product.objects.filter(TIME.condition(Product, "category", "none")).exists()


class Warehouse(Spelled):
    number = models.IntegerField(unique=True)
    slug = models.SlugField(unique=True)

    class Meta:
        app_label = "spelled"


class Pallet(Spelled):
    warehouse = models.ForeignKey(Warehouse, on_delete=models.PROTECT, to_field="number")

    class Meta:
        app_label = "spelled"


@pytest.mark.django_db
def test_a_related_row_that_is_referred_to_by_another_field_than_its_key() -> None:
    """Each warehouse has the number that is the other's key."""
    with connection.schema_editor(atomic=False) as editor:
        editor.create_model(Warehouse)
        editor.create_model(Pallet)
    for key, number, slug in ((1, 2, "north"), (2, 1, "south")):
        Warehouse.objects.create(pk=key, number=number, slug=slug)
        Pallet.objects.create(pk=key, warehouse_id=number)
    path = AccessPath("id", warehouse=equals("warehouse", by="slug"))
    found = Pallet.objects.filter(path.condition(Pallet, "warehouse", "north"))
    assert [pallet.pk for pallet in found] == [1]


@pytest.mark.parametrize(
    ("name", "ascending", "descending"),
    [("after", True, False), ("until", False, True), ("before", False, True), ("category", False, False)],
)
def test_a_bound_says_where_reading_starts(name: str, *, ascending: bool, descending: bool) -> None:
    wanted = TIME.filters[name]
    assert wanted.bounds_start(descending=False) is ascending
    assert wanted.bounds_start(descending=True) is descending


def test_unknown_field() -> None:
    with pytest.raises(FieldDoesNotExist):
        field_of(Product, "colour")
