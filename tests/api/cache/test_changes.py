"""A worker's part in invalidation: it tells what it changes before it answers, and drops what others have changed."""

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
import redis
import uvloop

from api.cache import changes
from api.cache.changes import ainvalidate, heard
from products.models import Category
from tests.api.cache import views
from tests.api.cache.harness import DEADLINE, Cached, Told, target, worker
from tests.loops import until

Keys = Callable[[], set[str]]
CATEGORY = {"products.category", "products.category:*"}
uvloop_only = pytest.mark.parametrize("runner", [uvloop.new_event_loop], indirect=True, ids=["uvloop"])


def is_fresh(pages: Cached) -> bool:
    """Whether the page is computed anew."""
    before = views.calls["state"]
    pages.get("/state")
    return views.calls["state"] > before


def hold(pages: Cached) -> None:
    """Until the worker answers from its memory, and on the wire."""
    for _ in range(3):
        pages.get("/state")
    assert not is_fresh(pages)


@pytest.mark.parametrize("path", ["/write?slug=", "/write_async?slug=", "/announce?slug="])
def test_who_writes_never_answers_with_the_old(
    told: Told, keys: Keys, committing: None, pages: Cached, path: str
) -> None:
    for _ in range(5):
        hold(pages)
        assert pages.get(path + secrets.token_hex(8)).status_code == 200
        assert "tag:products.category" not in keys()
        assert is_fresh(pages)
        tags = told.next()
        assert "products.category" in tags
        assert told.no_more()


def test_what_others_change_is_dropped(pages: Cached, valkey: "redis.Redis", prefix: str) -> None:
    hold(pages)
    valkey.delete(f"{prefix}:tag:products.category")
    valkey.publish(f"{prefix}:changed", orjson.dumps([*CATEGORY]))
    give_up = time.monotonic() + 0.3  # before Redis would have been asked in any case
    while not is_fresh(pages):
        assert time.monotonic() < give_up


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", b"{}", b"1", b'"products.category"', b"[1, null, [], {}]", b'["orders.order"]']
)
def test_other_messages_change_nothing(
    pages: Cached, valkey: "redis.Redis", prefix: str, garbage: bytes
) -> None:
    hold(pages)
    announcer = changes._announcer
    assert announcer
    heard_before = announcer.invalidations
    valkey.publish(f"{prefix}:changed", garbage)
    give_up = time.monotonic() + DEADLINE
    while announcer.invalidations == heard_before:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    assert not is_fresh(pages)
    assert announcer.subscribed


@uvloop_only
async def test_what_was_changed_last_is_told(runner: asyncio.Runner, told: Told) -> None:
    async with worker() as one:
        async with heard(one.finder) as announcer:
            announcer.announce_soon([*CATEGORY])
        assert told.next() == CATEGORY
        assert told.no_more()
    assert len(asyncio.all_tasks()) == 1


@uvloop_only
async def test_from_another_loop(runner: asyncio.Runner, told: Told) -> None:
    """A thread with a loop of its own, such as async_to_sync makes."""
    async with worker() as one, heard(one.finder):
        await one.get(target())
        await asyncio.to_thread(asyncio.run, ainvalidate(Category))
        assert told.next() == CATEGORY
        assert len(one.memory) == 0


@uvloop_only
async def test_from_many_threads_at_once(runner: asyncio.Runner, told: Told) -> None:
    async with worker() as one, heard(one.finder):
        await until(lambda: changes._announcer and changes._announcer.subscribed)
        with ThreadPoolExecutor(8) as threads:
            loop = asyncio.get_running_loop()
            tags = [f"products.category:{number}" for number in range(100)]
            await asyncio.gather(*(loop.run_in_executor(threads, changes._publish, [tag]) for tag in tags))
        assert set().union(*(told.next() for _ in tags)) == {*tags}
        assert told.no_more()


@uvloop_only
async def test_after_the_worker_s_end_a_process_tells_by_itself(runner: asyncio.Runner, told: Told) -> None:
    async with worker() as one, heard(one.finder):
        pass
    await ainvalidate(Category, 1)
    assert told.next() == {"products.category", "products.category:1"}
    assert threading.active_count() < 50


@uvloop_only
async def test_a_worker_that_stops_as_it_subscribes_stops(runner: asyncio.Runner, prefix: str) -> None:
    """A cancellation in the turn in which something is sent can get lost."""
    async with worker() as one:
        for turns in range(150):
            async with asyncio.timeout(DEADLINE), heard(one.finder):
                for _ in range(turns):
                    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
