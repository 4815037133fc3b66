"""Releases that share a Redis: each has its own entries, and hears of the other's changes."""

import asyncio
from pathlib import Path

import pytest
from django.test import override_settings
from pytest_django import Settings

from api.cache import release as module
from api.cache.changes import open_publisher
from api.cache.release import release
from api.reads.listing import Listing
from tests.api.cache.harness import Origin, target, worker
from tests.loops import until
from tests.shop.models import Category, Product
from tests.shop.queries import CATEGORIES, PRODUCTS
from tests.shop.schemas import CategoryOut, ProductOut

pytestmark = pytest.mark.usefixtures("runner", "prefix")


async def test_no_release_answers_with_what_another_has_stored() -> None:
    async with worker(release="old") as old, worker(release="new") as new, worker(release="new") as newer:
        old.origin.body, new.origin.body, newer.origin.body = b"old", b"new", b"new"
        for _ in range(2):
            assert (await old.get(target()))[0] == b"old"
            assert (await new.get(target()))[0] == b"new"
            await old.settle()
            await new.settle()
        assert await newer.get(target()) == (b"new", "hit", "l2")  # of its own release
        assert (old.origin.calls, new.origin.calls, newer.origin.calls) == (1, 1, 0)


async def test_no_release_waits_for_another_s_lock() -> None:
    origin = Origin()
    async with worker(origin, release="old") as old, worker(release="new") as new:
        origin.released.clear()
        asked = asyncio.create_task(old.get(target()))
        await until(lambda: origin.calls == 1)
        assert (await new.get(target()))[1] == "miss"
        origin.released.set()
        await asked


async def test_a_change_is_everybody_s() -> None:
    async with (
        worker(release="old") as old,
        worker(release="new") as new,
        open_publisher(new.lookup) as publisher,
    ):
        await until(lambda: publisher.subscribed)
        for each in (old, new):
            await each.get(target())
            await each.settle()
        await old.lookup.shared.invalidate(["shop.product"])
        await until(lambda: len(new.memory) == 0)
        assert (await new.get(target()))[1] == "miss"


def test_what_makes_a_release(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = release()
    assert release() == first
    changed = [{"SECRET_KEY": "another" * 10}, {"REVISION": "abc123"}, {"VERSION": "0.1.1"}]
    found = []
    for change in changed:
        with override_settings(**change):
            found.append(release())
            assert settings.SECRET_KEY not in found[-1]
    assert len({first, *found}) == len(changed) + 1
    with override_settings(SECRET_KEY_FALLBACKS=["of before"]):
        assert release() == first  # which are read, and not written
    # The code, of which a deployment need not say that it is another.
    (tmp_path / "products").mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    code = tmp_path / "products" / "api.py"
    digests = set()
    for text in ("a = 1", "a = 2"):
        code.write_text(text)
        digests.add(release())
    assert len(digests) == 2
    with override_settings(REVISION="abc123"):
        known = release()
        code.write_text("a = 3")
        assert release() == known  # the revision stands for the code


def test_listings_of_another_shape_have_other_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where neither the code nor its version has changed: settings may choose between them."""
    monkeypatch.setattr("api.reads.listing.LISTINGS", [])

    same = Listing(CATEGORIES.name, Category.objects.all(), CategoryOut, *CATEGORIES.paths)
    # With the category by default.
    fewer = Listing(PRODUCTS.name, Product.objects.all(), ProductOut, *PRODUCTS.paths)
    assert same.form_digest == CATEGORIES.form_digest
    assert len({CATEGORIES.form_digest, PRODUCTS.form_digest, fewer.form_digest}) == 3
    assert PRODUCTS.one("product_id").form_digest == PRODUCTS.form_digest
