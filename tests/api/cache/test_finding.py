"""The way to an answer: memory, Redis, the application; who computes, what is kept, what an error does."""

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
import uvloop

from api.cache import finding
from api.cache.entry import Entry
from api.cache.finding import LIFE, PATIENCE, QUIET, UNLIKELY, _is_due
from api.cache.flights import Flight
from api.cache.memory import Memory
from api.cache.packing import pack
from api.cache.policy import POLICIES
from api.cache.shared import LOCK, Target
from tests.api.cache.harness import DEADLINE, SCOPE, Clock, Origin, entry, policy, target, worker
from tests.loops import until

Keys = Callable[[], set[str]]
TAGS = {"tag:products.product", "tag:products.category"}
PAGE = {"entry:page?", *TAGS}

pytestmark = [
    pytest.mark.usefixtures("runner", "prefix"),
    pytest.mark.parametrize("runner", [uvloop.new_event_loop], indirect=True, ids=["uvloop"]),
]


async def test_miss_then_memory() -> None:
    async with worker() as one:
        page = target()
        assert await one.get(page) == (b"answer 1", "miss", "none")
        assert await one.get(page) == (b"answer 1", "hit", "l1")
        assert one.origin.calls == 1


async def test_other_workers_find_it_in_redis(keys: Keys) -> None:
    async with worker() as one, worker() as two:
        await one.get(target())
        await one.settle()
        assert keys() == PAGE
        assert await two.get(target()) == (b"answer 1", "hit", "l2")
        assert await two.get(target()) == (b"answer 1", "hit", "l1")
        assert two.origin.calls == 0


async def test_without_memory_redis_is_asked_each_time() -> None:
    async with worker(memory=False) as one:
        assert await one.get(target()) == (b"answer 1", "miss", "none")
        await one.settle()
        for _ in range(3):
            assert await one.get(target()) == (b"answer 1", "hit", "l2")
        assert one.origin.calls == 1


async def test_one_computation_for_all_who_ask() -> None:
    async with worker() as one:
        answers = await asyncio.gather(*(one.get(target()) for _ in range(100)))
        assert sorted(answers) == [(b"answer 1", "collapsed", "none")] * 99 + [(b"answer 1", "miss", "none")]
        assert one.origin.calls == 1


async def test_one_computation_among_workers() -> None:
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two, worker(origin) as three:
        asked = [each.get(target()) for each in (one, two, three) for _ in range(20)]
        outcomes = {(outcome, tier) for _, outcome, tier in await asyncio.gather(*asked)}
        assert origin.calls == 1
        assert outcomes == {("miss", "none"), ("collapsed", "none"), ("collapsed", "l2")}


async def test_different_pages_do_not_wait_for_each_other() -> None:
    async with worker() as one:
        one.origin.released.clear()
        first, second = (asyncio.create_task(one.get(target(key))) for key in ("a", "b"))
        await until(lambda: one.origin.calls == 2)
        one.origin.released.set()
        assert {(await first)[0], (await second)[0]} <= {b"answer 1", b"answer 2"}


async def test_a_leader_who_is_cancelled_takes_nobody_with_him(keys: Keys) -> None:
    async with worker() as one:
        one.origin.released.clear()
        asked = [asyncio.create_task(one.get(target())) for _ in range(5)]
        await one.origin.asked.wait()
        asked[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked[0]
        one.origin.released.set()
        answers = [await each for each in asked[1:]]
        assert answers == [(b"answer 2", "miss", "none")] + [(b"answer 2", "collapsed", "none")] * 3
        await one.settle()
        assert "lock:page?" not in keys()


@pytest.mark.parametrize("steps", range(6))
async def test_a_leader_who_is_cancelled_before_he_hears_of_his_lock(
    keys: Keys, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker() as one:
        await one.get(target("warm"))  # connections are open
        await one.settle()
        asked, reserve = asyncio.Event(), one.finder.shared.reserve

        async def tell(target: Target, token: str) -> Any:
            asked.set()
            return await reserve(target, token)

        monkeypatch.setattr(one.finder.shared, "reserve", tell)
        one.origin.released.clear()
        leader = asyncio.create_task(one.get(target()))
        await asked.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        leader.cancel()
        with suppress(asyncio.CancelledError):
            await leader
        await one.settle()
    assert "lock:page?" not in keys()


async def test_an_error_is_everybodys(keys: Keys) -> None:
    async with worker() as one:
        one.origin.error = ValueError("no")
        asked = await asyncio.gather(*(one.get(target()) for _ in range(5)), return_exceptions=True)
        assert [type(answer) for answer in asked] == [ValueError] * 5
        assert one.origin.calls == 1
        await one.settle()
        assert keys() == TAGS  # and the lock is free
        one.origin.error = None
        assert (await one.get(target()))[1] == "miss"


@pytest.mark.parametrize("status", [404, 410, 422, 500, 503, 301, 204, 206])
async def test_other_answers_are_passed_on_and_not_kept(keys: Keys, status: int) -> None:
    async with worker() as one:
        one.origin.status = status
        for number in range(1, 4):
            assert await one.get(target()) == (b"answer %d" % number, "miss", "none")
        await one.settle()
        assert keys() == TAGS
        assert len(one.memory) == 0


# --- Freshness ------------------------------------------------------------------------------------


async def test_redis_is_asked_in_the_second_half_of_a_life(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        held = one.memory.get("page?")
        assert held
        clock.ahead += 0.6 * LIFE
        assert await one.get(target()) == (b"answer 1", "hit", "l1")
        assert one.finder._tasks
        await one.settle()
        assert one.memory.get("page?") is held  # made ready once, it stays
        assert held.live_until > clock.monotonic() + 0.9 * LIFE
        assert one.origin.calls == 1


async def test_after_a_life_redis_is_asked_first(clock: Clock, valkey: "redis.Redis", prefix: str) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 1.1 * LIFE
        assert await one.get(target()) == (b"answer 1", "hit", "l2")
        valkey.delete(f"{prefix}:tag:products.category")  # by a worker whose message is lost
        assert await one.get(target()) == (b"answer 1", "hit", "l1")
        clock.ahead += 1.1 * LIFE
        assert await one.get(target()) == (b"answer 2", "miss", "none")


async def test_stale_while_revalidate(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11  # fresh for 10
        one.origin.released.clear()
        assert await one.get(target()) == (b"answer 1", "stale", "l2")
        assert await one.get(target()) == (b"answer 1", "stale", "l1")
        one.origin.released.set()
        await one.settle()
        assert one.origin.calls == 2
        assert await one.get(target()) == (b"answer 2", "hit", "l1")


async def test_one_refresh_among_workers(clock: Clock) -> None:
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two:
        await one.get(target())
        await one.settle()
        await two.get(target())
        clock.ahead += 11
        origin.released.clear()
        assert (await one.get(target()))[1] == (await two.get(target()))[1] == "stale"
        await until(lambda: origin.calls == 2 and len(two.finder._tasks) == 0)
        origin.released.set()
        await one.settle()
        assert origin.calls == 2
        clock.ahead += 1.1 * LIFE
        assert await two.get(target()) == (b"answer 2", "hit", "l2")


async def test_no_answer_beyond_its_stale_time(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 71
        assert await one.get(target()) == (b"answer 2", "miss", "none")


@pytest.mark.parametrize("failure", [500, 503, ValueError("no")])
async def test_stale_if_error(clock: Clock, failure: Any) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        if isinstance(failure, int):
            one.origin.status = failure
        else:
            one.origin.error = failure
        for outcome in (("stale", "l2"), ("stale", "l1")):
            assert await one.get(target()) == (b"answer 1", *outcome)
            await one.settle()
        assert one.origin.calls == 2
        clock.ahead += 0.8 * QUIET  # beyond its life
        assert await one.get(target()) == (b"answer 1", "stale", "l2")
        await one.settle()
        assert one.origin.calls == 2  # it is left in peace for a while
        clock.ahead += 0.3 * QUIET
        assert await one.get(target()) == (b"answer 1", "stale", "l1")
        await one.settle()
        assert one.origin.calls == 3
        clock.ahead += 60
        if isinstance(failure, int):
            assert await one.get(target()) == (b"answer 4", "miss", "none")
        else:
            with pytest.raises(ValueError, match="no"):
                await one.get(target())


@pytest.mark.parametrize("status", [404, 410])
async def test_a_page_that_is_gone_is_dropped(clock: Clock, keys: Keys, status: int) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        one.origin.status = status
        assert (await one.get(target()))[1] == "stale"
        await one.settle()
        await one.settle()
        assert keys() == TAGS
        assert len(one.memory) == 0
        assert await one.get(target()) == (b"answer 3", "miss", "none")


async def test_a_refresh_that_another_has_made(clock: Clock) -> None:
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two:
        await one.get(target())
        await one.settle()
        await two.get(target())
        clock.ahead += 11
        await one.get(target())
        await one.settle()
        assert origin.calls == 2
        two_held = two.memory.get("page?")
        assert two_held
        two_held.live_until = clock.monotonic() + 1  # it has not looked since
        assert await two.get(target()) == (b"answer 1", "stale", "l1")
        await two.settle()
        assert origin.calls == 2
        assert await two.get(target()) == (b"answer 2", "hit", "l1")


# --- XFetch ---------------------------------------------------------------------------------------


def test_early_refresh_is_a_matter_of_chance(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """P(refresh at t) = P(cost * -ln(u) >= expiry - t) = exp(-(expiry - t) / cost)."""
    monkeypatch.setattr(finding, "random", random.Random(1))  # noqa: S311
    made = entry(cost=0.1, created=clock.time())
    for costs in (0.1, 1, 3):
        now = made.fresh_until - costs * made.cost
        share = sum(_is_due(made, now) for _ in range(20_000)) / 20_000
        assert share == pytest.approx(math.exp(-costs), abs=0.01)
    assert not any(_is_due(made, made.fresh_until - UNLIKELY * made.cost) for _ in range(20_000))
    assert all(_is_due(made, made.fresh_until) for _ in range(100))


def test_an_entry_is_calm_only_where_no_refresh_is_due(clock: Clock) -> None:
    for cost, calm in ((0.001, LIFE / 2), (0.5, 0.0), (100.0, 0.0)):
        made = entry(cost=cost, created=clock.time())
        worker_kept(made)
        assert max(0.0, made.calm_until - clock.monotonic()) == pytest.approx(calm, abs=0.05)


def worker_kept(made: Entry) -> None:
    keeper: Any = finding.Finder.__new__(finding.Finder)
    keeper.memory = Memory({})
    keeper._keep(made, Flight(target(), SCOPE))


async def test_a_costly_page_is_refreshed_before_its_time(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        held = one.memory.get("page?")
        assert held
        await one.settle()
        held.cost = 5.0
        clock.ahead += 9.9
        held.live_until = clock.monotonic() + 1
        async with asyncio.timeout(DEADLINE):
            while one.origin.calls == 1:
                assert (await one.get(target()))[1:] == ("hit", "l1")
                await one.settle()
        assert await one.get(target()) == (b"answer 2", "hit", "l1")


# --- Invalidation ---------------------------------------------------------------------------------


async def test_what_is_forgotten_is_not_in_memory() -> None:
    async with worker() as one:
        await one.get(target())
        one.finder.forget(["products.category"])
        assert len(one.memory) == 0
        one.finder.forget(["products.category"])


async def test_a_change_during_a_computation_leaves_nothing_behind(keys: Keys) -> None:
    async with worker() as one, worker() as two:
        one.origin.released.clear()
        before = asyncio.create_task(one.get(target()))
        await one.origin.asked.wait()
        one.finder.forget(["products.product"])
        await one.finder.shared.change(["products.product"])
        one.origin.released.set()
        assert await before == (b"answer 1", "miss", "none")  # who asked before the change may see what was
        await one.settle()
        assert len(one.memory) == 0
        two.origin.body = b"the change"
        assert await two.get(target()) == (b"the change", "miss", "none")
        await two.settle()
        assert await one.get(target()) == (b"the change", "hit", "l2")


async def test_who_asks_after_a_change_waits_for_no_older_flight() -> None:
    """Not in this worker and not in another; and what is computed too late replaces nothing."""
    async with worker() as one, worker() as two:
        first, two.origin.body = one.origin.released, b"the change"
        first.clear()
        before = asyncio.create_task(one.get(target()))
        await one.origin.asked.wait()
        await one.finder.shared.change(["products.product"])
        one.finder.forget(["products.product"])
        one.origin.released = asyncio.Event()
        one.origin.released.set()
        async with asyncio.timeout(PATIENCE / 2):
            assert await two.get(target()) == (b"the change", "miss", "none")
            await two.settle()
            assert await one.get(target()) == (b"the change", "hit", "l2")
        first.set()
        assert (await before)[0] == b"answer 1"
        await one.settle()
        assert await one.get(target()) == (b"the change", "hit", "l1")
        async with worker() as three:
            assert await three.get(target()) == (b"the change", "hit", "l2")


async def test_a_change_during_a_refresh(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        one.origin.released.clear()
        assert (await one.get(target()))[1] == "stale"
        await until(lambda: one.origin.calls == 2)
        one.finder.forget(["products.product"])
        await one.finder.shared.change(["products.product"])
        one.origin.released.set()
        await one.settle()
        assert len(one.memory) == 0
        assert await one.get(target()) == (b"answer 3", "miss", "none")


# --- What is in Redis -----------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [b"", b"\x80\x04}\x94.", b'{"status": 200}', b"s10\x01garbage"])
async def test_foreign_values_are_misses_that_are_counted(
    valkey: "redis.Redis", prefix: str, foreign: bytes
) -> None:
    async with worker() as one, worker() as two:
        await one.get(target())
        await one.settle()
        valkey.set(f"{prefix}:entry:page?", foreign)
        assert await two.get(target()) == (b"answer 1", "miss", "none")
        assert two.finder.shared.corrupt >= 1
        await two.settle()
        async with worker() as three:
            assert (await three.get(target()))[1:] == ("hit", "l2")
            assert three.finder.shared.corrupt == 0


@pytest.mark.parametrize("command", [("RPUSH", "a"), ("HSET", "a", "b"), ("SADD", "a")])
@pytest.mark.parametrize("key", ["entry:page?", "tag:products.product"])
async def test_values_of_another_type_cost_a_computation_and_no_wait(
    valkey: "redis.Redis", prefix: str, keys: Keys, key: str, command: tuple[str, ...]
) -> None:
    client: Any = valkey
    client.execute_command(command[0], f"{prefix}:{key}", *command[1:])
    async with worker() as one, worker() as two:
        for each in (one, two):
            async with asyncio.timeout(PATIENCE / 2):
                assert (await each.get(target()))[0] == b"answer 1"
            await each.settle()
        if key.startswith("entry"):
            assert valkey.type(f"{prefix}:{key}") == b"string"
        if key.startswith("tag"):
            assert "lock:page?" not in keys()


async def test_tags_live_as_long_as_the_longest_page_that_has_them(
    valkey: "redis.Redis", prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting = policy("lasting", fresh=3600)
    monkeypatch.setitem(POLICIES, "lasting", lasting)
    async with worker() as one:
        await one.get(Target(lasting, "lasting?", lasting.tags({})))
        await one.get(target())
    assert valkey.ttl(f"{prefix}:tag:products.product") > 3600


async def test_a_lock_whose_holder_died_is_waited_for_in_vain(
    valkey: "redis.Redis", prefix: str, clock: Clock
) -> None:
    valkey.set(f"{prefix}:lock:page?", "somebody", px=int(LOCK * 1000))
    async with worker() as one:
        asked = asyncio.create_task(one.get(target()))
        await until(lambda: f"{prefix}:tag:products.product".encode() in valkey.keys(f"{prefix}:*"))
        assert not asked.done()
        clock.ahead += PATIENCE
        assert await asked == (b"answer 1", "miss", "none")
        assert valkey.get(f"{prefix}:lock:page?") == b"somebody"


async def test_nothing_goes_on_after_the_close(keys: Keys, clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        one.origin.released.clear()
        await one.get(target())
        await until(lambda: one.origin.calls == 2)
        assert "lock:page?" in keys()
    assert len(asyncio.all_tasks()) == 1
    assert "lock:page?" not in keys()


async def test_entries_of_another_clock(valkey: "redis.Redis", prefix: str) -> None:
    """A clock that is ahead makes nothing live longer than an entry does in Redis."""
    async with worker() as one, worker() as two:
        await one.get(target())
        await one.settle()
        held = one.memory.get("page?")
        assert held
        held.created += 3600
        valkey.set(f"{prefix}:entry:page?", pack(held))
        assert (await two.get(target()))[1:] == ("hit", "l2")
        kept = two.memory.get("page?")
        assert kept
        assert kept.fresh_until <= held.fresh_until + 1
        assert int(dict(kept.teller.tell(b"hit; ttl=%d"))[b"age"]) == 0
