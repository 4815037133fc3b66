"""Writes count on commit, in workers and in commands."""

import psycopg
import pytest

from ops.project import NAME
from tests.e2e.cache.fleet import PREFIX, Fleet, until

PAGE = "/api/products/7"
TAG = f"{PREFIX}:tag:shop.product:7"


def test_a_transaction_that_is_rolled_back_changes_nothing(workers: Fleet) -> None:
    before = [member.get(PAGE) for member in workers.members]
    version = workers.valkey.client.get(TAG)
    assert version
    workers.wiretap.clear()
    workers.members[0].post("/tests/rollback/7")
    assert any("ROLLBACK" in statement for statement in workers.wiretap.statements)
    assert workers.valkey.client.get(TAG) == version
    workers.wiretap.clear()
    for member, response in zip(workers.members, before, strict=True):
        assert member.get(PAGE).content == response.content
        assert member.how(PAGE).startswith(f"{NAME}; hit")
    assert workers.wiretap.executions == 0


@pytest.mark.parametrize("way", ["native", "orm"])
def test_a_commit_counts_at_once_where_it_was_made(workers: Fleet, way: str) -> None:
    for _ in range(20):
        for member in workers.members:
            member.get(PAGE)
            value = int(member.post(f"/tests/{way}/7").text)
            assert member.get(PAGE).json()["demand_qty"] == value


def test_a_command_reaches_the_workers(workers: Fleet) -> None:
    for member in workers.members:
        member.get(PAGE)
    workers.manage(
        "shell",
        "-v0",
        "-c",
        "from tests.shop.models import Product; Product.objects.filter(pk=7).update(demand_qty=123456)",
    )
    for member in workers.members:
        until(lambda m=member: m.get(PAGE).json()["demand_qty"] == 123456, "the change", 1.0)  # type: ignore[misc]


def test_seeding_reaches_the_workers(workers: Fleet, database: "psycopg.Connection[object]") -> None:
    """Also pages that are requested while rows are added."""
    page = "/api/products?sort=-id&limit=1"
    database.execute("DELETE FROM shop_product WHERE id = 10000")
    for member in workers.members:
        assert member.get(page).json()["results"][0]["id"] == 9999
    try:
        workers.manage("seed_shop", "--rows", "10000", "-v0")
        for member in workers.members:
            until(lambda m=member: m.get(page).json()["results"][0]["id"] == 10000, "the row", 1.0)  # type: ignore[misc]
    finally:  # as the other tests of this database know it
        database.execute(
            "UPDATE shop_product SET time_created = date_trunc('minute', time_created) WHERE id = 10000"
        )
