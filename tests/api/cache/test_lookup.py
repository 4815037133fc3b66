"""Lookups: memory, Redis, the application; stampedes, freshness, errors, invalidation."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis
import uvloop
from django.test import override_settings

from api.cache.lookup import GRACE_SECONDS, TRUST_SECONDS
from api.cache.packing import pack
from api.cache.policy import POLICIES, Target
from api.cache.rendering import MAX_BODY_BYTES, Unstorable
from tests.api.cache.harness import DEADLINE, Clock, Origin, policy, target, worker
from tests.loops import until

Keys = Callable[[], set[str]]
TAGS = {"tag:shop.product", "tag:shop.category"}
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


async def test_a_cheap_miss_asks_redis_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply to the lookup has the versions of the tags, which it makes if they are missing."""
    async with worker() as one:
        trips: list[str] = []

        def watch(name: str) -> None:
            method: Any = getattr(one.lookup.shared, name)

            def noted(*arguments: Any, **options: Any) -> Any:
                trips.append(name)
                return method(*arguments, **options)

            monkeypatch.setattr(one.lookup.shared, name, noted)

        for name in ("look_up", "reserve", "store"):
            watch(name)
        for key, cost in (("first", 0.0), ("cheap", 0.0), ("expensive", DEADLINE)):
            await one.get(target(key, cost=cost))
            await one.settle()
        cheap, expensive = ["look_up", "store"], ["look_up", "reserve", "store"]
        assert trips == cheap + cheap + expensive


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


@pytest.mark.parametrize("cost", [0.0, DEADLINE])
async def test_stampede_of_workers(keys: Keys, cost: float) -> None:
    """Each worker computes a cheap answer at most once, and one of them an expensive one."""
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two, worker(origin) as three:
        workers = one, two, three
        asked = [each.get(target(cost=cost)) for each in workers for _ in range(20)]
        outcomes = {(outcome, tier) for _, outcome, tier in await asyncio.gather(*asked)}
        if cost:
            assert origin.calls == 1
            assert outcomes == {("miss", "none"), ("collapsed", "none"), ("collapsed", "l2")}
        else:
            assert origin.calls <= len(workers)
            assert {("miss", "none"), ("collapsed", "none")} <= outcomes
        for each in workers:
            await each.settle()
        assert keys() == PAGE


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
        asked = [asyncio.create_task(one.get(target(cost=DEADLINE))) for _ in range(5)]
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
        asked, reserve = asyncio.Event(), one.lookup.shared.reserve

        async def tell(target: Target, token: str) -> Any:
            asked.set()
            return await reserve(target, token)

        monkeypatch.setattr(one.lookup.shared, "reserve", tell)
        one.origin.released.clear()
        leader = asyncio.create_task(one.get(target(cost=DEADLINE)))
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
        expensive = target(cost=DEADLINE)
        asked = await asyncio.gather(*(one.get(expensive) for _ in range(5)), return_exceptions=True)
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


async def test_in_grace_redis_is_asked_in_the_background(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        held = one.memory.get("page?")
        assert held
        clock.ahead += TRUST_SECONDS + 0.5 * GRACE_SECONDS
        assert await one.get(target()) == (b"answer 1", "hit", "l1")
        assert one.lookup._tasks
        await one.settle()
        assert one.memory.get("page?") is held  # made ready once, it stays
        assert held.trusted_until > clock.monotonic() + 0.9 * TRUST_SECONDS
        assert one.origin.calls == 1


@override_settings(REDIS_URL="redis://127.0.0.1:1/0")  # where nobody listens
async def test_in_grace_without_redis_the_next_is_computed_in_the_background(clock: Clock) -> None:
    """No request for a page in demand waits for what no Redis can confirm, and none gets one that is older."""
    async with worker() as one:
        await one.get(target())
        for number in range(1, 4):
            clock.ahead += TRUST_SECONDS + 0.5 * GRACE_SECONDS
            assert await one.get(target()) == (b"answer %d" % number, "hit", "l1")
            await one.settle()
        clock.ahead += TRUST_SECONDS + GRACE_SECONDS
        assert await one.get(target()) == (b"answer 5", "miss", "none")


@override_settings(REDIS_URL="redis://127.0.0.1:1/0")
async def test_what_is_computed_in_the_background_is_not_computed_for_a_request_too(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        clock.ahead += TRUST_SECONDS + 0.5 * GRACE_SECONDS
        one.origin.released.clear()
        one.origin.asked.clear()
        assert await one.get(target()) == (b"answer 1", "hit", "l1")
        await one.origin.asked.wait()
        clock.ahead += 0.6 * GRACE_SECONDS
        waiting = asyncio.create_task(one.get(target()))
        await asyncio.sleep(0)
        one.origin.released.set()
        assert await waiting == (b"answer 2", "collapsed", "none")
        assert one.origin.calls == 2


async def test_after_grace_redis_is_asked_first(clock: Clock, valkey: "redis.Redis", prefix: str) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 2 * TRUST_SECONDS
        assert await one.get(target()) == (b"answer 1", "hit", "l2")
        valkey.delete(f"{prefix}:tag:shop.category")  # by a worker, and its message is lost
        assert await one.get(target()) == (b"answer 1", "hit", "l1")
        clock.ahead += 2 * TRUST_SECONDS
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


@pytest.mark.parametrize("memory", [True, False])
async def test_stale_while_revalidate_takes_long(clock: Clock, memory: bool) -> None:  # noqa: FBT001
    """A request that comes meanwhile has Redis confirm the stale entry, and waits for no computation."""
    async with worker(memory=memory) as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        one.origin.released.clear()
        for _ in range(3):
            async with asyncio.timeout(DEADLINE / 4):
                assert await one.get(target()) == (b"answer 1", "stale", "l2")
            clock.ahead += 1.5 * GRACE_SECONDS
        one.origin.released.set()


async def test_one_refresh_among_workers(clock: Clock) -> None:
    origin = Origin()
    async with worker(origin) as one, worker(origin) as two:
        await one.get(target(cost=DEADLINE))
        await one.settle()
        await two.get(target(cost=DEADLINE))
        clock.ahead += 11
        origin.released.clear()
        assert (
            (await one.get(target(cost=DEADLINE)))[1] == (await two.get(target(cost=DEADLINE)))[1] == "stale"
        )
        await until(lambda: origin.calls == 2)
        origin.released.set()
        await one.settle()
        assert origin.calls == 2
        clock.ahead += 2 * TRUST_SECONDS
        assert await two.get(target(cost=DEADLINE)) == (b"answer 2", "hit", "l2")


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
        held = one.memory.get("page?")
        assert held
        one.memory.learn(held, b"/page")
        clock.ahead += 11
        if isinstance(failure, int):
            one.origin.status = failure
        else:
            one.origin.error = failure
        for outcome in (("stale", "l2"), ("stale", "l1")):
            assert await one.get(target()) == (b"answer 1", *outcome)
            await one.settle()
        assert one.origin.calls == 2
        clock.ahead += 0.8 * TRUST_SECONDS
        assert await one.get(target()) == (b"answer 1", "stale", "l1")
        await one.settle()
        assert one.origin.calls == 2  # the next attempt is not yet due
        assert not one.wire
        assert held.trusted_until > clock.monotonic()
        clock.ahead += 0.3 * TRUST_SECONDS
        assert await one.get(target()) == (b"answer 1", "stale", "l1")
        await one.settle()
        assert one.origin.calls == 3
        clock.ahead += held.stale_until - clock.monotonic() - 0.5 * TRUST_SECONDS
        assert (await one.get(target()))[1] == "stale"  # and fails once more
        await one.settle()
        assert one.origin.calls == 4
        clock.ahead += 0.6 * TRUST_SECONDS
        if isinstance(failure, int):
            assert await one.get(target()) == (b"answer 5", "miss", "none")
        else:
            with pytest.raises(ValueError, match="no"):
                await one.get(target())


async def test_an_answer_that_is_too_large_by_now_replaces_the_old_one(clock: Clock, keys: Keys) -> None:
    """It is no failure: the endpoint gives it to each request."""
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        one.origin.body = b"x" * (MAX_BODY_BYTES + 1)
        assert (await one.get(target()))[:2] == (b"answer 1", "stale")
        await one.settle()
        assert keys() == TAGS
        with pytest.raises(Unstorable):
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
        two_held.trusted_until = clock.monotonic()  # it has not looked since
        assert await two.get(target()) == (b"answer 1", "stale", "l1")
        await two.settle()
        assert origin.calls == 2
        assert await two.get(target()) == (b"answer 2", "hit", "l1")


# --- Invalidation ---------------------------------------------------------------------------------


async def test_a_fresh_entry_is_not_trusted_beyond_that(clock: Clock) -> None:
    """Redis is away and the next computation fails: the wire sends the entry as fresh only while it is."""
    async with worker() as one:
        await one.get(target())
        await one.settle()
        held = one.memory.get("page?")
        assert held
        clock.ahead += held.fresh_until - clock.monotonic() - 0.3 * TRUST_SECONDS
        one.origin.status = 503
        one.lookup.shared.client.breaker.open(ConnectionError("away"))
        assert (await one.get(target()))[:2] == (b"answer 1", "stale")
        await one.settle()
        assert held.trusted_until <= held.fresh_until
        assert await one.get(target()) == (b"answer 1", "hit", "l1")
        clock.ahead += 0.5 * TRUST_SECONDS
        assert await one.get(target()) == (b"answer 1", "stale", "l1")


async def test_what_is_forgotten_is_not_in_memory() -> None:
    async with worker() as one:
        await one.get(target())
        one.lookup.invalidate(["shop.category"])
        assert len(one.memory) == 0
        one.lookup.invalidate(["shop.category"])


async def test_what_a_change_has_made_invalid_is_sent_no_more_though_the_next_one_fails() -> None:
    """As while Postgres is away: it would show what is no longer there."""
    async with worker() as one:
        await one.get(target())
        await one.settle()
        one.lookup.invalidate(["shop.product"])
        await one.lookup.shared.invalidate(["shop.product"])
        one.origin.status = 503
        assert await one.get(target()) == (b"answer 2", "miss", "none")


async def test_a_change_during_a_computation_leaves_nothing_behind(keys: Keys) -> None:
    async with worker() as one, worker() as two:
        one.origin.released.clear()
        before = asyncio.create_task(one.get(target()))
        await one.origin.asked.wait()
        one.lookup.invalidate(["shop.product"])
        await one.lookup.shared.invalidate(["shop.product"])
        one.origin.released.set()
        assert await before == (
            b"answer 1",
            "miss",
            "none",
        )  # a request from before the change may see the old
        await one.settle()
        assert len(one.memory) == 0
        two.origin.body = b"the change"
        assert await two.get(target()) == (b"the change", "miss", "none")
        await two.settle()
        assert await one.get(target()) == (b"the change", "hit", "l2")


async def test_who_asks_after_a_change_waits_for_no_older_flight() -> None:
    """Not in this worker and not in another; and a result that comes too late replaces nothing."""
    async with worker() as one, worker() as two:
        first, two.origin.body = one.origin.released, b"the change"
        first.clear()
        before = asyncio.create_task(one.get(target(cost=DEADLINE)))
        await one.origin.asked.wait()
        await one.lookup.shared.invalidate(["shop.product"])
        one.lookup.invalidate(["shop.product"])
        one.origin.released = asyncio.Event()
        one.origin.released.set()
        async with asyncio.timeout(DEADLINE / 2):
            assert await two.get(target(cost=DEADLINE)) == (b"the change", "miss", "none")
            await two.settle()
            assert await one.get(target(cost=DEADLINE)) == (b"the change", "hit", "l2")
        first.set()
        assert (await before)[0] == b"answer 1"
        await one.settle()
        assert await one.get(target(cost=DEADLINE)) == (b"the change", "hit", "l1")
        async with worker() as three:
            assert await three.get(target(cost=DEADLINE)) == (b"the change", "hit", "l2")


async def test_a_change_during_a_refresh(clock: Clock) -> None:
    async with worker() as one:
        await one.get(target())
        await one.settle()
        clock.ahead += 11
        one.origin.released.clear()
        assert (await one.get(target()))[1] == "stale"
        await until(lambda: one.origin.calls == 2)
        one.lookup.invalidate(["shop.product"])
        await one.lookup.shared.invalidate(["shop.product"])
        one.origin.released.set()
        await one.settle()
        assert len(one.memory) == 0
        assert await one.get(target()) == (b"answer 3", "miss", "none")


# --- Values in Redis -----------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", [b"", b"\x80\x04}\x94.", b'{"status": 200}', b"s10\x01garbage"])
async def test_foreign_values_are_misses_that_are_counted(
    valkey: "redis.Redis", prefix: str, foreign: bytes
) -> None:
    async with worker() as one, worker() as two:
        await one.get(target())
        await one.settle()
        valkey.set(f"{prefix}:entry:release:page?", foreign)
        assert await two.get(target()) == (b"answer 1", "miss", "none")
        assert two.lookup.shared.corrupt >= 1
        await two.settle()
        async with worker() as three:
            assert (await three.get(target()))[1:] == ("hit", "l2")
            assert three.lookup.shared.corrupt == 0


@pytest.mark.parametrize("command", [("RPUSH", "a"), ("HSET", "a", "b"), ("SADD", "a")])
@pytest.mark.parametrize("key", ["entry:release:page?", "tag:shop.product"])
async def test_values_of_another_type_cost_a_computation_and_no_wait(
    valkey: "redis.Redis", prefix: str, keys: Keys, key: str, command: tuple[str, ...]
) -> None:
    client: Any = valkey
    client.execute_command(command[0], f"{prefix}:{key}", *command[1:])
    async with worker() as one, worker() as two:
        for each in (one, two):
            async with asyncio.timeout(DEADLINE / 2):
                assert (await each.get(target(cost=DEADLINE)))[0] == b"answer 1"
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
    assert valkey.ttl(f"{prefix}:tag:shop.product") > 3600


@pytest.mark.parametrize("cost", [0.0, 5.0])
async def test_a_dear_answer_is_waited_for_as_long_as_it_costs(
    valkey: "redis.Redis", prefix: str, clock: Clock, cost: float
) -> None:
    """The worker that computes it may have died. Others compute a cheap one at once."""
    valkey.set(f"{prefix}:lock:release:page?", "another worker", px=60_000)
    async with worker() as one:
        asked = asyncio.create_task(one.get(target(cost=cost)))
        if cost:
            await until(lambda: f"{prefix}:tag:shop.product".encode() in valkey.keys(f"{prefix}:*"))
            clock.ahead += cost - 1
            assert not asked.done()
            clock.ahead += 1
        assert await asked == (b"answer 1", "miss", "none")
        assert valkey.get(f"{prefix}:lock:release:page?") == b"another worker"


async def test_a_lock_ends_when_the_answer_is_due(valkey: "redis.Redis", prefix: str) -> None:
    async with worker() as one:
        one.origin.released.clear()
        asked = asyncio.create_task(one.get(target(cost=5.0)))
        await one.origin.asked.wait()
        assert 4000 < valkey.pttl(f"{prefix}:lock:release:page?") <= 5000
        one.origin.released.set()
        await asked
        await one.settle()
        assert not valkey.exists(f"{prefix}:lock:release:page?")


async def test_a_lock_that_has_ended_is_not_deleted(valkey: "redis.Redis", prefix: str, clock: Clock) -> None:
    """It may be that of another worker by now."""
    async with worker() as one:
        one.origin.released.clear()
        asked = asyncio.create_task(one.get(target(cost=5.0)))
        await one.origin.asked.wait()
        clock.ahead += 5
        one.origin.released.set()
        await asked
        await one.settle()
        assert valkey.exists(f"{prefix}:lock:release:page?")


async def test_nothing_goes_on_after_the_close(keys: Keys, clock: Clock) -> None:
    async with worker() as one:
        await one.get(target(cost=DEADLINE))
        await one.settle()
        clock.ahead += 11
        one.origin.released.clear()
        await one.get(target(cost=DEADLINE))
        await until(lambda: one.origin.calls == 2)
        assert "lock:page?" in keys()
    assert len(asyncio.all_tasks()) == 1
    assert "lock:page?" not in keys()


async def test_entries_of_another_clock(valkey: "redis.Redis", prefix: str) -> None:
    """A clock that is ahead makes nothing fresh for longer: an entry of the future is stale."""
    async with worker() as one, worker() as two:
        await one.get(target())
        await one.settle()
        held = one.memory.get("page?")
        assert held
        held.created += 3600
        valkey.set(f"{prefix}:entry:release:page?", pack(held))
        found = await two.lookup.find(target())
        assert (found.outcome, found.tier) == ("stale", "l2")
        assert found.entry
        assert found.entry.stale_until <= held.stale_until
        assert int(dict(found.entry.age_and_status.fields(b"hit; ttl=%d"))[b"age"]) == 10  # fresh no more
        await two.settle()
        assert two.origin.calls == 1
