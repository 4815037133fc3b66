"""A worker's part in invalidation: it publishes its changes before it answers, and drops others' changes."""

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
from api.cache.changes import CONFIRM_SECONDS, Publisher, ainvalidate, open_publisher
from tests.api.cache import views
from tests.api.cache.harness import DEADLINE, Cached, Subscriber, target, worker
from tests.loops import until
from tests.shop.models import Category

Keys = Callable[[], set[str]]
CATEGORY = {"shop.category", "shop.category:*"}
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
    subscriber: Subscriber, keys: Keys, committing: None, pages: Cached, path: str
) -> None:
    for _ in range(5):
        hold(pages)
        assert pages.get(path + secrets.token_hex(8)).status_code == 200
        assert "tag:shop.category" not in keys()
        assert is_fresh(pages)
        tags = subscriber.next()
        assert "shop.category" in tags
        assert subscriber.no_more()


def test_what_others_change_is_dropped(pages: Cached, valkey: "redis.Redis", prefix: str) -> None:
    hold(pages)
    valkey.delete(f"{prefix}:tag:shop.category")
    valkey.publish(f"{prefix}:changed", orjson.dumps([*CATEGORY]))
    give_up = time.monotonic() + 0.3  # before Redis would have been asked in any case
    while not is_fresh(pages):
        assert time.monotonic() < give_up


@pytest.mark.parametrize(
    "garbage", [b"", b"\xff", b"{}", b"1", b'"shop.category"', b"[1, null, [], {}]", b'["orders.order"]']
)
def test_other_messages_change_nothing(
    pages: Cached, valkey: "redis.Redis", prefix: str, garbage: bytes
) -> None:
    hold(pages)
    publisher = changes._publisher
    assert publisher
    heard_before = publisher.invalidations
    valkey.publish(f"{prefix}:changed", garbage)
    give_up = time.monotonic() + DEADLINE
    while publisher.invalidations == heard_before:
        assert time.monotonic() < give_up
        time.sleep(0.001)
    assert not is_fresh(pages)
    assert publisher.subscribed


@uvloop_only
async def test_the_last_changes_are_published(runner: asyncio.Runner, subscriber: Subscriber) -> None:
    async with worker() as one:
        async with open_publisher(one.lookup) as publisher:
            publisher.publish_soon([*CATEGORY])
        assert subscriber.next() == CATEGORY
        assert subscriber.no_more()
    assert len(asyncio.all_tasks()) == 1


@uvloop_only
async def test_from_another_loop(runner: asyncio.Runner, subscriber: Subscriber) -> None:
    """A thread with a loop of its own, such as async_to_sync makes."""
    async with worker() as one, open_publisher(one.lookup):
        await one.get(target())
        await asyncio.to_thread(asyncio.run, ainvalidate(Category))
        assert subscriber.next() == CATEGORY
        assert len(one.memory) == 0


@uvloop_only
async def test_from_many_threads_at_once(runner: asyncio.Runner, subscriber: Subscriber) -> None:
    async with worker() as one, open_publisher(one.lookup):
        await until(lambda: changes._publisher and changes._publisher.subscribed)
        with ThreadPoolExecutor(8) as threads:
            loop = asyncio.get_running_loop()
            tags = [f"shop.category:{number}" for number in range(100)]
            await asyncio.gather(*(loop.run_in_executor(threads, changes._publish, [tag]) for tag in tags))
        assert set().union(*(subscriber.next() for _ in tags)) == {*tags}
        assert subscriber.no_more()


@uvloop_only
async def test_after_the_worker_s_end_a_process_publishes_by_itself(
    runner: asyncio.Runner, subscriber: Subscriber
) -> None:
    async with worker() as one, open_publisher(one.lookup):
        pass
    await ainvalidate(Category, 1)
    assert subscriber.next() == {"shop.category", "shop.category:1"}
    assert threading.active_count() < 50


@uvloop_only
async def test_a_worker_that_stops_as_it_subscribes_stops(runner: asyncio.Runner, prefix: str) -> None:
    """A cancellation in the turn in which something is sent can get lost."""
    async with worker() as one:
        for turns in range(150):
            async with asyncio.timeout(DEADLINE), open_publisher(one.lookup):
                for _ in range(turns):
                    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


@uvloop_only
async def test_a_listener_that_confirms_nothing_is_waited_for_once(
    runner: asyncio.Runner, subscriber: Subscriber
) -> None:
    """A worker of an older release, say: here the test's own subscription."""
    async with worker() as one, worker() as other, open_publisher(one.lookup) as publisher:
        loop = asyncio.get_running_loop()
        listening = Publisher(other.lookup)
        await until(lambda: publisher.subscribed and listening.subscribed)
        took = []
        for _ in range(3):
            began = loop.time()
            await publisher.publish([*CATEGORY])
            took.append(loop.time() - began)
        assert took[0] > CONFIRM_SECONDS / 2  # the clock of a loop has milliseconds
        assert min(took[1:]) < CONFIRM_SECONDS / 2
        assert listening.invalidations >= 3
        await listening.close()


@uvloop_only
async def test_a_listener_that_is_slow_is_not_taken_for_silent(
    runner: asyncio.Runner, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it confirms late, the next change waits for it as before."""
    async with worker() as one, worker() as other, open_publisher(one.lookup) as publisher:
        listening = Publisher(other.lookup)
        await until(lambda: publisher.subscribed and listening.subscribed)
        confirm = listening._confirm

        async def confirm_late(name: str, number: str) -> None:
            await asyncio.sleep(2 * CONFIRM_SECONDS)
            await confirm(name, number)

        monkeypatch.setattr(listening, "_confirm", confirm_late)
        await publisher.publish([*CATEGORY])
        assert publisher._silent_until > 0
        await until(lambda: publisher._silent_until == 0)
        await listening.close()
