"""What the tables refuse, and migrations there and back, asked of real databases."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import ProtectedError

from products.models import Category, Product
from tests.spare import Database

GOOD: dict[str, Any] = {
    "low_price": "1.00",
    "high_price": "1.00",
    "demand_qty": 0,
    "offers_qty": 0,
    "bought_qty": 0,
    "sold_qty": 0,
    "time_created": "2020-01-01T00:00:00Z",
}
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'products_%'"
SCHEMA = """
    SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'products_%'
    UNION SELECT conrelid::regclass || conname || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid::regclass::text LIKE 'products_%'
    UNION SELECT table_name || column_name || data_type || is_nullable || COALESCE(column_default, '')
    FROM information_schema.columns WHERE table_name LIKE 'products_%'
"""


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change", [{}, {"sold_qty": 2**31 - 1}, {"low_price": "-99999.99"}, {"category": None}]
)
def test_good_rows(change: dict[str, Any]) -> None:
    product = Product.objects.create(**GOOD | change)
    product.refresh_from_db()
    assert str(product) == f"Product {product.pk}"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"low_price": "1.01"}, "product_price_order"),
        ({"high_price": "-1"}, "product_price_order"),
        *(
            ({f"{name}_qty": -1}, f"product_{name}_qty_positive")
            for name in ("demand", "offers", "bought", "sold")
        ),
        *(({name: None}, "not-null") for name in GOOD),
    ],
)
def test_bad_rows(change: dict[str, Any], constraint: str) -> None:
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Product.objects.create(**GOOD | change)


@pytest.mark.django_db
def test_a_quantity_beyond_integer() -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        Product.objects.create(**GOOD | {"sold_qty": 2**31})


@pytest.mark.django_db
def test_category_must_exist() -> None:
    Product.objects.create(**GOOD, category_id=2**62)
    with pytest.raises(IntegrityError):
        connection.check_constraints()


@pytest.mark.django_db
def test_a_category_of_products_stays() -> None:
    category = Category.objects.create(slug="only-here", name="Only here")
    Product.objects.create(**GOOD, category=category)
    with pytest.raises(ProtectedError):
        category.delete()
    assert str(category) == "Only here"


@pytest.mark.django_db
def test_a_slug_names_one_category() -> None:
    Category.objects.create(slug="only-here", name="Only here")
    with pytest.raises(IntegrityError, match="slug"), transaction.atomic():
        Category.objects.create(slug="only-here", name="Another")


@pytest.mark.parametrize(
    "change",
    [
        {"high_price": "NaN"},
        {"low_price": "NaN", "high_price": "NaN"},
        {"time_created": "infinity"},
        {"time_created": "-infinity"},
        {"time_created": "10000-01-01Z"},
        {"time_created": "0001-01-01BC"},
    ],
    ids=str,
)
def test_values_that_no_answer_can_spell(insert: Callable[..., int], change: dict[str, Any]) -> None:
    """COPY or psql can bring them; such a row would fail each page that it is on."""
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(**change)


def state(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.connect() as asked:
        return sorted(asked.execute(query).fetchall())


def test_migrations_there_and_back(own: Database) -> None:
    schema = state(own, SCHEMA)
    assert own.manage("seed_products", "--rows", "50").returncode == 0
    for target, tables in (("zero", []), ("", [("products_category",), ("products_product",)])):
        migrated = own.manage("migrate", "--verbosity=0", "products", *filter(None, [target]))
        assert (migrated.returncode, migrated.stderr) == (0, "")
        assert state(own, TABLES) == tables
    assert state(own, SCHEMA) == schema


def test_migrations_say_all_that_the_models_say(migrated: Database) -> None:
    checked = migrated.manage("makemigrations", "--check", "--dry-run")
    assert (checked.returncode, checked.stderr) == (0, "")
