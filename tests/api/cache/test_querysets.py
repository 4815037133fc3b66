# ruff: noqa: DJ008  # no models for people
"""Every way of writing through the ORM invalidates, once it is committed, in one message a transaction."""

import datetime
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
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
from api.cache.changes import MAX_KEYS, _tags, ainvalidate, invalidate
from api.cache.policy import one
from api.cache.querysets import InvalidatingQuerySet, connect_signals, is_invalidating
from tests.api.cache.harness import FIRST_EXTRA, Subscriber
from tests.service import ROOT
from tests.shop.models import Category, Order, Product, Tag

ANY = {"shop.product", "shop.product:*"}
CATEGORY = {"shop.category", "shop.category:*"}
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
    """Products whose creation was not published."""
    with connection.cursor() as cursor:
        made = [product() for _ in range(number)]
        for each in made:
            cursor.execute(
                "INSERT INTO shop_product (id, low_price, high_price, demand_qty, offers_qty, bought_qty,"
                " sold_qty, time_created) VALUES (%s, 1, 2, 0, 0, 0, 0, '2030-01-01Z')",
                [each.pk],
            )
    return [*Product.objects.filter(pk__in=[each.pk for each in made]).order_by("pk")]


def category() -> Category:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_category (slug, name) VALUES (%s, 'test') RETURNING id",
            [f"test-{next(ids)}"],
        )
        return Category.objects.get(pk=cursor.fetchone()[0])


def row(*keys: int) -> set[str]:
    return {"shop.product", *(f"shop.product:{key}" for key in keys)}


# --- One row --------------------------------------------------------------------------------------


def test_create_save_and_delete(subscriber: Subscriber) -> None:
    made = product()
    made.save(force_insert=True)
    assert subscriber.next() == row(made.pk)
    made.sold_qty = 1
    made.save(update_fields=["sold_qty"])
    assert subscriber.next() == row(made.pk)
    key = made.pk
    made.delete()
    assert subscriber.next() == row(key)
    assert subscriber.no_more()


def test_get_or_create(subscriber: Subscriber) -> None:
    slug = f"test-{next(ids)}"
    made, created = Category.objects.get_or_create(slug=slug)
    assert created
    assert subscriber.next() == {"shop.category", f"shop.category:{made.pk}"}
    Category.objects.get_or_create(slug=slug)
    assert subscriber.no_more()
    Category.objects.update_or_create(slug=slug, defaults={"name": "other"})
    assert subscriber.next() == {"shop.category", f"shop.category:{made.pk}"}


def test_what_fails_changes_nothing(subscriber: Subscriber) -> None:
    (made,) = saved()
    made.low_price = 3
    with pytest.raises(IntegrityError):
        made.save()
    with pytest.raises(IntegrityError), transaction.atomic():  # noqa: PT012
        Product.objects.filter(pk=made.pk).update(sold_qty=5)
        made.save()
    assert subscriber.no_more()


# --- Many rows ------------------------------------------------------------------------------------


def test_update(subscriber: Subscriber) -> None:
    (made,) = saved()
    Product.objects.filter(pk=made.pk).update(sold_qty=1)
    assert subscriber.next() == ANY
    Product.objects.filter(pk=-1).update(sold_qty=1)
    assert subscriber.no_more()


def test_bulk_create(subscriber: Subscriber) -> None:
    Product.objects.bulk_create([product() for _ in range(5)], batch_size=2)
    assert subscriber.next() == ANY
    assert subscriber.no_more()


def test_bulk_create_that_changes_rows(subscriber: Subscriber) -> None:
    """Rows that are there already are changed: any, since it is unknown which."""
    (made,) = saved()
    made.sold_qty = 9
    rows = [made, product()]
    fields = {"update_conflicts": True, "unique_fields": ["id"], "update_fields": ["sold_qty"]}
    Product.objects.bulk_create(rows, **fields)
    assert Product.objects.get(pk=made.pk).sold_qty == 9
    assert subscriber.next() == ANY
    assert subscriber.no_more()


def test_bulk_update(subscriber: Subscriber) -> None:
    made = saved(5)
    for each in made:
        each.sold_qty = 4
    Product.objects.bulk_update(made, ["sold_qty"], batch_size=2)
    assert subscriber.next() == ANY
    assert subscriber.no_more()


def test_delete(subscriber: Subscriber) -> None:
    made = saved(3)
    Product.objects.filter(pk__in=[each.pk for each in made]).delete()
    assert subscriber.next() == row(*(each.pk for each in made))
    assert subscriber.no_more()


def test_a_thousand_deletes_are_one_message(subscriber: Subscriber) -> None:
    made = saved(1000)
    with transaction.atomic():
        for each in made[:500]:
            each.delete()
        Product.objects.filter(pk__in=[each.pk for each in made[500:]]).delete()
    assert subscriber.next() == ANY
    assert subscriber.no_more()


def test_a_few_are_named(subscriber: Subscriber) -> None:
    made = saved(MAX_KEYS + 1)
    keys = [each.pk for each in made]
    invalidate(Product, *keys[:-1])
    assert subscriber.next() == row(*keys[:-1])
    invalidate(Product, *keys)
    assert subscriber.next() == ANY


# --- Related rows ---------------------------------------------------------------------------------


def test_related_managers(subscriber: Subscriber) -> None:
    made, (one, two) = category(), saved(2)
    made.products.add(one)
    assert subscriber.next() == ANY
    made.products.set([two])
    assert subscriber.next() == ANY
    made.products.clear()
    assert subscriber.next() == ANY
    made.products.add(one, bulk=False)
    assert subscriber.next() == row(one.pk)
    made.products.update(sold_qty=3)
    assert subscriber.next() == ANY
    assert subscriber.no_more()


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[models.Model], type[models.Model]]]:
    """An owner, and things whose owner may go."""
    with isolate_apps("tests.shop") as apps:

        class Owner(models.Model):
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "shop"
                base_manager_name = "objects"

        class Thing(models.Model):
            owner = models.ForeignKey(Owner, on_delete=models.SET_NULL, null=True)
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "shop"
                base_manager_name = "objects"

        monkeypatch.setattr(querysets, "apps", apps)
        connect_signals()
        with connection.schema_editor() as editor:
            editor.create_model(Owner)
            editor.create_model(Thing)
        yield Owner, Thing
        with connection.schema_editor() as editor:
            editor.delete_model(Thing)
            editor.delete_model(Owner)


def test_rows_that_are_changed_by_the_end_of_another(
    subscriber: Subscriber, owners: tuple[type[models.Model], type[models.Model]]
) -> None:
    owner, thing = (model._default_manager for model in owners)
    made = owner.create()
    thing.create(owner=made)
    subscriber.next(), subscriber.next()
    made.delete()
    assert subscriber.next() == {"shop.owner", "shop.owner:1", "shop.thing", "shop.thing:*"}
    assert subscriber.no_more()


def test_who_is_invalidating() -> None:
    assert is_invalidating(Product)
    with isolate_apps("tests.shop"):

        class Half(models.Model):
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "shop"

        class Silent(models.Model):
            class Meta:
                app_label = "shop"

        class Whole(models.Model):
            objects = InvalidatingQuerySet.as_manager()
            plain = models.Manager()  # noqa: DJ012  the first one is the default

            class Meta:
                app_label = "shop"
                base_manager_name = "objects"

    assert not is_invalidating(Half)
    assert not is_invalidating(Silent)
    assert not is_invalidating(Whole)


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A model that tells of no change, and a proxy and a child of it that do."""
    with isolate_apps("tests.shop") as apps:

        class Account(models.Model):
            name = models.TextField()

            class Meta:
                app_label = "shop"

        class Customer(Account):
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "shop"
                base_manager_name = "objects"
                proxy = True

        class Business(Account):
            objects = InvalidatingQuerySet.as_manager()

            class Meta:
                app_label = "shop"
                base_manager_name = "objects"

        monkeypatch.setattr(querysets, "apps", apps)
        connect_signals()
        with connection.schema_editor() as editor:
            editor.create_model(Account)
            editor.create_model(Business)
        yield [Account, Customer, Business]
        with connection.schema_editor() as editor:
            editor.delete_model(Business)
            editor.delete_model(Account)


def test_rows_of_a_proxy_and_of_a_child_change_by_their_parent(
    subscriber: Subscriber, accounts: list[Any]
) -> None:
    account, customer, business = accounts
    made = account.objects.create(name="ada")
    assert subscriber.next() == {"shop.account", "shop.account:1"}
    made.delete()
    assert subscriber.next() == {"shop.account", "shop.account:1"}
    customer.objects.create(name="ada")
    assert subscriber.next() == {"shop.account", "shop.account:2"}
    account.objects.update(name="bob")  # of which nobody hears
    assert subscriber.no_more()
    assert not any(map(is_invalidating, (account, customer, business)))


@isolate_apps("tests.shop")
def test_parents_have_keys_of_their_own() -> None:
    """The key of a child's row is its parent's only along the link that is its primary key."""

    class Place(models.Model):
        class Meta:
            app_label = "shop"

    class Owned(models.Model):
        owned_id = models.AutoField(primary_key=True)

        class Meta:
            app_label = "shop"

    class Shop(Place, Owned):
        class Meta:
            app_label = "shop"

    class Book(Place):
        place_ptr = models.OneToOneField(Place, models.CASCADE, parent_link=True)
        isbn = models.CharField(max_length=13, primary_key=True)

        class Meta:
            app_label = "shop"

    class Rare(Book):
        class Meta:
            app_label = "shop"
            proxy = True

    any_place, any_owned = {"shop.place", "shop.place:*"}, {"shop.owned", "shop.owned:*"}
    assert {*_tags(Shop, [7])} == {"shop.shop", "shop.shop:7", "shop.place", "shop.place:7"} | any_owned
    for model in (Book, Rare):
        assert {*_tags(model, ["978x"])} == {"shop.book", "shop.book:978x"} | any_place
        assert {*one(model, "id").tags({"id": "978x"})} == {"shop.book:978x", "shop.book:*", "shop.place"}


# --- Transactions ---------------------------------------------------------------------------------


def test_nothing_is_told_before_the_commit(subscriber: Subscriber) -> None:
    (made,) = saved()
    with transaction.atomic():
        made.save()
        Category.objects.filter(slug="garden").update(name="Garden")
        assert subscriber.no_more()
    assert subscriber.next() == row(made.pk) | CATEGORY
    assert subscriber.no_more()


def test_a_hook_that_fails_keeps_nothing_back(subscriber: Subscriber) -> None:
    def fail() -> None:
        raise ValueError("no")

    (made,) = saved()
    with pytest.raises(ValueError, match="no"), transaction.atomic():  # noqa: PT012
        transaction.on_commit(fail)
        made.save()
    assert subscriber.next() == row(made.pk)


def test_nothing_is_told_of_what_was_rolled_back(subscriber: Subscriber) -> None:
    (made,) = saved()
    with pytest.raises(ValueError, match="no"), transaction.atomic():  # noqa: PT012
        made.save()
        raise ValueError("no")
    assert subscriber.no_more()


@pytest.mark.parametrize("kept", [True, False])
def test_savepoints(subscriber: Subscriber, kept: bool) -> None:  # noqa: FBT001
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
        assert subscriber.next() == row(one.pk, four.pk)
    else:
        told_of = subscriber.next()
        while not told_of >= row(one.pk, two.pk, three.pk, four.pk):
            told_of |= subscriber.next()
        assert told_of == row(one.pk, two.pk, three.pk, four.pk)
    assert subscriber.no_more()


def test_what_joins_a_kept_savepoint_shares_the_fate_of_what_is_around_it(subscriber: Subscriber) -> None:
    one, two, three = saved(3)
    with transaction.atomic():
        one.save()
        with pytest.raises(ValueError, match="no"), transaction.atomic():  # noqa: PT012
            with transaction.atomic():
                two.save()
            three.save()
            raise ValueError("no")
    assert subscriber.next() == row(one.pk)
    assert subscriber.no_more()


def test_blocks_without_a_savepoint_are_one_with_what_is_around_them(subscriber: Subscriber) -> None:
    made, keys = saved(20), []
    with transaction.atomic():
        for each in made[1:]:
            keys.append(each.pk)
            each.save()
            each.delete()  # in a block of its own
        with transaction.atomic(savepoint=False):
            made[0].save()
    assert subscriber.next() == row(made[0].pk, *keys)
    assert subscriber.no_more()


# --- By hand --------------------------------------------------------------------------------------


def test_sql(subscriber: Subscriber) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE shop_category SET name = name WHERE slug = 'garden'")
        invalidate(Category)
        invalidate(Product, 7, 8)
        assert subscriber.no_more()
    assert subscriber.next() == CATEGORY | row(7, 8)
    invalidate(Product, "009")
    assert subscriber.next() == row(9)
    assert subscriber.no_more()


async def test_in_async_code(subscriber: Subscriber, runner: Any) -> None:
    await ainvalidate(Product, 7)
    assert subscriber.next() == row(7)
    await ainvalidate(Category)
    assert subscriber.next() == CATEGORY
    with pytest.raises(SynchronousOnlyOperation):  # not silently nothing
        invalidate(Product, 7)
    assert subscriber.no_more()


def test_async_methods(subscriber: Subscriber, runner: Any) -> None:
    async def write() -> None:
        await made.asave()
        await Product.objects.filter(pk=made.pk).aupdate(sold_qty=3)
        await Product.objects.abulk_create([product()])
        await made.adelete()

    (made,) = saved()
    key = made.pk
    try:
        runner.run(write())
        assert [subscriber.next() for _ in range(4)] == [row(key), ANY, ANY, row(key)]
    finally:
        runner.run(close())
    assert subscriber.no_more()


async def close() -> None:
    """The connection of the thread that async methods run in."""
    await sync_to_async(lambda: connection.close())()  # noqa: PLW0108  # there it is another


def test_another_process(subscriber: Subscriber, prefix: str) -> None:
    code = (
        "from tests.shop.models import Category; from api.cache.changes import invalidate; invalidate(Category, 3);"
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
    assert subscriber.next() == {"shop.category", "shop.category:3"}


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


def test_tags_in_redis_are_gone(subscriber: Subscriber, valkey: "redis.Redis", prefix: str) -> None:
    names = ("shop.product", "shop.product:7", "shop.product:8", "shop.product:*")
    for name in names:
        valkey.set(f"{prefix}:tag:{name}", "version", ex=60)
    invalidate(Product, 7)
    assert [valkey.exists(f"{prefix}:tag:{name}") for name in names] == [0, 0, 1, 1]
    invalidate(Product)
    assert [valkey.exists(f"{prefix}:tag:{name}") for name in names] == [0, 0, 1, 0]


# --- Many to many ---------------------------------------------------------------------------------


def test_rows_between_two_models(subscriber: Subscriber) -> None:
    through: Any = Order.tags.through
    assert is_invalidating(through)
    order = Order.objects.order_by("id")[0]
    tag = Tag.objects.get(slug="express")
    before = [*order.tags.all()]
    changes: list[Callable[[], Any]] = [
        lambda: order.tags.add(tag),
        lambda: tag.orders.remove(order),
        lambda: order.tags.set([tag]),
        order.tags.clear,
        lambda: order.tags.set(before),
    ]
    for change in changes:
        change()
        told = subscriber.next()
        assert told >= {
            "shop.order_tags",
            "shop.order_tags:*",
            "shop.order",
            "shop.tag",
            f"shop.order:{order.pk}",
        }
        assert any(name.startswith("shop.tag:") for name in told)
    assert subscriber.no_more()
