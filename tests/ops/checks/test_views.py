"""Sync views of the API and pages by offset are found, wherever they hide in the URL configuration."""

import pytest
from pytest_django import Settings

from tests.ops.checks.conftest import Find

MODULE = "tests.ops.checks.urls"


@pytest.fixture(autouse=True)
def routes(settings: Settings) -> None:
    settings.ROOT_URLCONF = MODULE


def test_sync_views(find: Find) -> None:
    said = [message.msg for message in find("W010")]
    assert [line.split(" is sync")[0] for line in said] == [
        f"The view {MODULE}.sync_beside_async of 'ninja/mixed'",
        f"The view {MODULE}.sync_function of 'plain/function'",
        f"The view {MODULE}.SyncView of 'plain/class'",
    ]


def test_writes_for_any_client(find: Find) -> None:
    said = [message.msg for message in find("W012")]
    assert said == [
        f"The view {MODULE}.sync_beside_async answers POST of 'ninja/mixed' to any client.",
        f"The view {MODULE}.written answers DELETE, PATCH of 'ninja/written' to any client.",
    ]


def test_writes_in_loops(find: Find) -> None:
    said = [message.msg for message in find("W013")]
    assert [line.split(" in a loop")[0] for line in said] == [
        f"The view {MODULE}.saving of 'ninja/saving' calls category.asave()",
        f"The view {MODULE}.commanding of 'ninja/commanding' calls CREATE()",
    ]


def test_modules_of_pages_may_be_sync(settings: Settings, find: Find) -> None:
    settings.SYNC_VIEWS = [MODULE]
    assert find("W010") == []


def test_pages_by_offset(find: Find) -> None:
    said = [message.msg for message in find("W011")]
    assert [line.split(": ")[0] for line in said] == [
        f"The view {MODULE}.pages of 'ninja/pages' takes page",
        f"The view {MODULE}.limits of 'ninja/limits' takes offset",
    ]


def test_a_prefix_that_is_a_routes_own(settings: Settings, find: Find) -> None:
    for prefix, said in {"": 0, "/shop": 0, "/nin": 0, "/ninja": 1}.items():
        settings.ROOT_PATH = prefix
        assert len(find("W014")) == said
