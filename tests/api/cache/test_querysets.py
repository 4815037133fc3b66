# ruff: noqa: DJ008  # no models for people
"""Every way of writing through the ORM says what has changed, once it is committed, in one message a transaction."""

import datetime
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import IntegrityError, connection, models, transaction
from django.test.utils import isolate_apps
from pytest_django import Settings

from api.cache import querysets
from api.cache.changes import MOST_KEYS, ainvalidate, invalidate
from api.cache.querysets import InvalidatingQuerySet, announces, connect
from products.models import Category, Product
from tests.api.cache.harness import FIRST_EXTRA, Told
from tests.service import ROOT

ANY = {"products.product", "products.product:*"}
CATEGORY = {"products.category", "products.category:*"}
ids = count(FIRST_EXTRA)

pytestmark = pytest.mark.usefixtures("committing")


def product(**values: Any) -> Product:
    """Not yet saved."""
    plain = {
        "low_price": 1,
        "high_price": 2,
        "demand_qty": 0,
        "offers_qty": 0,
        "bought_qty": 0,
        "sold_qty": 0,
    }
    time = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    return Product(**{"id": next(ids), "time_created": time} | plain | values)


def saved(number: int = 1) -> list[Product]:
    """Products that nobody was told of."""
    with connection.cursor() as cursor:
        made = [product() for _ in range(number)]
        for each in made:
            cursor.execute(
                "INSERT INTO products_product (id, low_price, high_price, demand_qty, offers_qty, bought_qty,"
                " sold_qty, time_created) VALUES (%s, 1, 2, 0, 0, 0, 0, '2030-01-01Z')",
                [each.pk],
            )
    return [*Product.objects.filter(pk__in=[each.pk for each in made]).order_by("pk")]


def category() -> Category:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO products_category (slug, name) VALUES (%s, 'test') RETURNING id",
            [f"test-{next(ids)}"],
        )
        return Category.objects.get(pk=cursor.fetchone()[0])


def row(*keys: int) -> set[str]:
    return {"products.product", *(f"products.product:{key}" for key in keys)}


# --- One row --------------------------------------------------------------------------------------


def test_create_save_and_delete(told: Told) -> None:
    made = product()
    made.save(force_insert=True)
    assert told.next() == row(made.pk)
    made.sold_qty = 1
    made.save(update_fields=["sold_qty"])
    assert told.next() == row(made.pk)
    key = made.pk
    made.delete()
    assert told.next() == row(key)
    assert told.no_more()


def test_get_or_create(told: Told) -> None:
    slug = f"test-{next(ids)}"
    made, created = Category.objects.get_or_create(slug=slug)
    assert created
    assert told.next() == {"products.category", f"products.category:{made.pk}"}
    Category.objects.get_or_create(slug=slug)
    assert told.no_more()
    Category.objects.update_or_create(slug=slug, defaults={"name": "other"})
    assert told.next() == {"products.category", f"products.category:{made.pk}"}


def test_what_fails_changes_nothing(told: Told) -> None:
    (made,) = saved()
    made.low_price = 3
    with pytest.raises(IntegrityError):
        made.save()
    with pytest.raises(IntegrityError), transaction.atomic():  # noqa: PT012
        Product.objects.filter(pk=made.pk).update(sold_qty=5)
        made.save()
    assert told.no_more()


# --- Many rows ------------------------------------------------------------------------------------


def test_update(told: Told) -> None:
    (made,) = saved()
    Product.objects.filter(pk=made.pk).update(sold_qty=1)
    assert told.next() == ANY
    Product.objects.filter(pk=-1).update(sold_qty=1)
    assert told.no_more()


def test_bulk_create(told: Told) -> None:
    Product.objects.bulk_create([product() for _ in range(5)], batch_size=2)
    assert told.next() == ANY
    assert told.no_more()


def test_bulk_create_that_changes_rows(told: Told) -> None:
    """Rows that are there already are changed: any, since nobody knows which."""
    (made,) = saved()
    made.sold_qty = 9
    rows = [made, product()]
    fields = {"update_conflicts": True, "unique_fields": ["id"], "update_fields": ["sold_qty"]}
    Product.objects.bulk_create(rows, **fields)
    assert Product.objects.get(pk=made.pk).sold_qty == 9
    assert told.next() == ANY
    assert told.no_more()


def test_bulk_update(told: Told) -> None:
    made = saved(5)
    for each in made:
        each.sold_qty = 4
    Product.objects.bulk_update(made, ["sold_qty"], batch_size=2)
    assert told.next() == ANY
    assert told.no_more()


def test_delete(told: Told) -> None:
    made = saved(3)
    Product.objects.filter(pk__in=[each.pk for each in made]).delete()
    assert told.next() == row(*(each.pk for each in made))
    assert told.no_more()


def test_a_thousand_deletes_are_one_message(told: Told) -> None:
    made = saved(1000)
    with transaction.atomic():
        for each in made[:500]:
            each.delete()
        Product.objects.filter(pk__in=[each.pk for each in made[500:]]).delete()
    assert told.next() == ANY
    assert told.no_more()


def test_a_few_are_named(told: Told) -> None:
    made = saved(MOST_KEYS + 1)
    keys = [each.pk for each in made]
    invalidate(Product, *keys[:-1])
    assert told.next() == row(*keys[:-1])
    invalidate(Product, *keys)
    assert told.next() == ANY


# --- Related rows ---------------------------------------------------------------------------------


def test_related_managers(told: Told) -> None:
    made, (one, two) = category(), saved(2)
    made.products.add(one)
    assert told.next() == ANY
    made.products.set([two])
    assert told.next() == ANY
    made.products.clear()
    assert told.next() == ANY
    made.products.add(one, bulk=False)
    assert told.next() == row(one.pk)
    made.products.update(sold_qty=3)
    assert told.next() == ANY
    assert told.no_more()


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[models.Model], type[models.Model]]]:
    """An owner, and things whose owner may go."""
    with isolate_apps("products") as apps:

        class Owner(models.Model):
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "products"
                base_manager_name = "objects"

        class Thing(models.Model):
            owner = models.ForeignKey(Owner, on_delete=models.SET_NULL, null=True)
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "products"
                base_manager_name = "objects"

        monkeypatch.setattr(querysets, "apps", apps)
        connect()
        with connection.schema_editor() as editor:
            editor.create_model(Owner)
            editor.create_model(Thing)
        yield Owner, Thing
        with connection.schema_editor() as editor:
            editor.delete_model(Thing)
            editor.delete_model(Owner)


def test_rows_that_are_changed_by_the_end_of_another(
    told: Told, owners: tuple[type[models.Model], type[models.Model]]
) -> None:
    owner, thing = (model._default_manager for model in owners)
    made = owner.create()
    thing.create(owner=made)
    told.next(), told.next()
    made.delete()
    assert told.next() == {"products.owner", "products.owner:1", "products.thing", "products.thing:*"}
    assert told.no_more()


def test_who_announces() -> None:
    assert announces(Product)
    with isolate_apps("products"):

        class Half(models.Model):
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "products"

        class Silent(models.Model):
            class Meta:
                app_label = "products"

    assert not announces(Half)
    assert not announces(Silent)


# --- Transactions ---------------------------------------------------------------------------------


def test_nothing_is_told_before_the_commit(told: Told) -> None:
    (made,) = saved()
    with transaction.atomic():
        made.save()
        Category.objects.filter(slug="garden").update(name="Garden")
        assert told.no_more()
    assert told.next() == row(made.pk) | CATEGORY
    assert told.no_more()


def test_nothing_is_told_of_what_was_rolled_back(told: Told) -> None:
    (made,) = saved()
    with pytest.raises(ValueError, match="no"), transaction.atomic():  # noqa: PT012
        made.save()
        raise ValueError("no")
    assert told.no_more()


@pytest.mark.parametrize("kept", [True, False])
def test_savepoints(told: Told, kept: bool) -> None:  # noqa: FBT001
    one, two, three, four = saved(4)
    with transaction.atomic():
        one.save()
        try:
            with transaction.atomic():
                two.save()
                with transaction.atomic():
                    three.save()
                if not kept:
                    raise ValueError
        except ValueError:
            pass
        four.save()
    if not kept:
        assert told.next() == row(one.pk, four.pk)
    else:
        told_of = told.next()
        while not told_of >= row(one.pk, two.pk, three.pk, four.pk):
            told_of |= told.next()
        assert told_of == row(one.pk, two.pk, three.pk, four.pk)
    assert told.no_more()


def test_what_joins_a_kept_savepoint_shares_the_fate_of_what_is_around_it(told: Told) -> None:
    one, two, three = saved(3)
    with transaction.atomic():
        one.save()
        with pytest.raises(ValueError, match="no"), transaction.atomic():  # noqa: PT012
            with transaction.atomic():
                two.save()
            three.save()
            raise ValueError("no")
    assert told.next() == row(one.pk)
    assert told.no_more()


def test_blocks_without_a_savepoint_are_one_with_what_is_around_them(told: Told) -> None:
    made, keys = saved(20), []
    with transaction.atomic():
        for each in made[1:]:
            keys.append(each.pk)
            each.save()
            each.delete()  # in a block of its own
        with transaction.atomic(savepoint=False):
            made[0].save()
    assert told.next() == row(made[0].pk, *keys)
    assert told.no_more()


# --- By hand --------------------------------------------------------------------------------------


def test_sql(told: Told) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE products_category SET name = name WHERE slug = 'garden'")
        invalidate(Category)
        invalidate(Product, 7, 8)
        assert told.no_more()
    assert told.next() == CATEGORY | row(7, 8)
    invalidate(Product, "009")
    assert told.next() == row(9)
    assert told.no_more()


async def test_in_async_code(told: Told, runner: Any) -> None:
    await ainvalidate(Product, 7)
    assert told.next() == row(7)
    await ainvalidate(Category)
    assert told.next() == CATEGORY
    with pytest.raises(SynchronousOnlyOperation):  # not silently nothing
        invalidate(Product, 7)
    assert told.no_more()


def test_async_methods(told: Told, runner: Any) -> None:
    async def write() -> None:
        await made.asave()
        await Product.objects.filter(pk=made.pk).aupdate(sold_qty=3)
        await Product.objects.abulk_create([product()])
        await made.adelete()

    (made,) = saved()
    key = made.pk
    try:
        runner.run(write())
        assert [told.next() for _ in range(4)] == [row(key), ANY, ANY, row(key)]
    finally:
        runner.run(close())
    assert told.no_more()


async def close() -> None:
    """The connection of the thread in which async methods do what they do."""
    await sync_to_async(lambda: connection.close())()  # noqa: PLW0108  # there it is another


def test_another_process(told: Told, prefix: str) -> None:
    code = (
        "from products.models import Category; from api.cache.changes import invalidate; invalidate(Category, 3);"
        "from django.conf import settings; print(settings.CACHE_PREFIX)"
    )
    ran = subprocess.run(
        [sys.executable, "manage.py", "shell", "-v0", "-c", code],
        cwd=ROOT,
        env=os.environ | {"CACHE_PREFIX": prefix},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == (f"{prefix}\n", "")
    assert told.next() == {"products.category", "products.category:3"}


def test_a_command_goes_on_without_redis(
    prefix: str, settings: Settings, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    location = f"unix://{tmp_path / 'nobody'}?db=0"
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": [location]}}
    (made,) = saved()
    made.sold_qty = 8
    made.save()
    assert Product.objects.get(pk=made.pk).sold_qty == 8
    assert "out of date" in caplog.text


def test_tags_in_redis_are_gone(told: Told, valkey: "redis.Redis", prefix: str) -> None:
    names = ("products.product", "products.product:7", "products.product:8", "products.product:*")
    for name in names:
        valkey.set(f"{prefix}:tag:{name}", "version", ex=60)
    invalidate(Product, 7)
    assert [valkey.exists(f"{prefix}:tag:{name}") for name in names] == [0, 0, 1, 1]
    invalidate(Product)
    assert [valkey.exists(f"{prefix}:tag:{name}") for name in names] == [0, 0, 1, 0]
