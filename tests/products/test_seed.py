"""`manage.py seed_products`: the same rows whatever the runs that made them, on real databases of their own."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from tests import spare

ROWS = (
    "SELECT product.*, slug FROM products_product product LEFT JOIN products_category c ON c.id = category_id"
)
CREATE = """
from django.db import connection
from products.models import Product
product = Product.objects.create(
    low_price=1, high_price=2, demand_qty=0, offers_qty=0, bought_qty=0, sold_qty=0, time_created="2030-01-01T00:00Z"
)
print(product.pk)
connection.close_pool()
"""


def seed(database: spare.Database, rows: int, *options: str) -> str:
    seeded = database.manage("seed_products", "--rows", str(rows), *options)
    assert (seeded.returncode, seeded.stderr) == (0, "")
    return seeded.stdout


def ask(database: spare.Database, query: str) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(query).fetchall()


def rows_of(database: spare.Database) -> list[tuple[Any, ...]]:
    return sorted(
        row[:8] + row[9:] for row in ask(database, ROWS)
    )  # all but category_id, which categories' order gives


@pytest.fixture(scope="module")
def seeded(migrated: spare.Database) -> Iterator[spare.Database]:
    """500 products, made in one run."""
    with spare.create(migrated.name.replace("template", "seeded"), migrated.name) as database:
        assert "there are 500 now" in seed(database, 500)
        yield database


def test_rows(seeded: spare.Database) -> None:
    rows = rows_of(seeded)
    assert [row[0] for row in rows] == list(range(1, 501))
    assert {row[-1] is None for row in rows} == {True, False}
    assert len({row[-1] for row in rows}) == 21
    assert all(0 <= row[1] <= row[2] < 1000 for row in rows)
    assert str(rows[0][7]) == "2020-01-01 00:00:13.370000+00:00"


def test_several_runs_end_in_the_same_rows(seeded: spare.Database, own: spare.Database) -> None:
    for rows in (1, 300, 500):
        seed(own, rows)
    assert rows_of(own) == rows_of(seeded)


def test_again_adds_nothing_and_says_so(seeded: spare.Database) -> None:
    before = rows_of(seeded)
    for rows in (500, 499, 0):
        assert (
            seed(seeded, rows)
            == f"There are 500 products already, {rows:,} were asked for: nothing to add.\n"
        )
    assert rows_of(seeded) == before


def test_another_seed_makes_other_rows(seeded: spare.Database, own: spare.Database) -> None:
    seed(own, 500, "--seed", "-9223372036854775808")
    same = [mine == other for mine, other in zip(rows_of(own), rows_of(seeded), strict=True)]
    assert not any(same)


def test_deleted_rows_are_made_up_for_behind_the_last(own: spare.Database) -> None:
    seed(own, 50)
    with own.connect() as connection:
        connection.execute("DELETE FROM products_product WHERE id <= 20")
    seed(own, 50)
    assert [row[0] for row in rows_of(own)] == list(range(21, 71))


def test_missing_indexes_are_built(own: spare.Database) -> None:
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'products_product' ORDER BY 1"
    before = ask(own, indexes)
    with own.connect() as connection:
        connection.execute("DROP INDEX product_time, product_low_price")
    assert "product_time" in seed(own, 0)
    assert ask(own, indexes) == before


def test_a_load_of_many_rows_keeps_every_index(own: spare.Database) -> None:
    indexes = "SELECT indexdef FROM pg_indexes WHERE tablename = 'products_product' ORDER BY 1"
    before = ask(own, indexes)
    seed(own, 100_001)  # more than one batch
    assert ask(own, indexes) == before
    assert ask(own, "SELECT count(*), max(id) FROM products_product") == [(100_001, 100_001)]


def test_the_next_product_gets_a_fresh_id(own: spare.Database) -> None:
    seed(own, 7)
    created = own.manage("shell", "--no-imports", "-c", CREATE)
    assert (created.stdout, created.stderr) == ("8\n", "")


@pytest.mark.parametrize(
    "options",
    [
        ("--rows", "-1"),
        ("--rows", "1" + "0" * 400),
        ("--seed", str(2**63)),
    ],
    ids=lambda options: " ".join(options)[:20],
)
def test_bad_options_are_refused_with_one_line(migrated: spare.Database, options: tuple[str, ...]) -> None:
    refused = migrated.manage("seed_products", *options)
    assert (refused.returncode, refused.stdout) == (1, "")
    (line,) = refused.stderr.splitlines()
    assert options[0] in line


@pytest.mark.parametrize("rows", ["1e3", ""])
def test_rows_that_are_no_number(migrated: spare.Database, rows: str) -> None:
    refused = migrated.manage("seed_products", "--rows", rows)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "argument --rows: invalid int value" in refused.stderr.splitlines()[-1]


def test_without_tables_one_line_says_what_to_do(django_db_setup: None) -> None:
    with spare.create(f"{settings.DATABASES['default']['NAME']}_bare") as bare:
        refused = bare.manage("seed_products", "--rows", "1")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "migrate" in line
