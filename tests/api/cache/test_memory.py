"""The worker's memory: its bounds, the order of evictions, the wire's targets."""

import gc
import re
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cache.conditions import Conditions
from api.cache.entry import Entry
from api.cache.memory import MAX_RECENT_TARGETS, MAX_TARGET_BYTES, MAX_TARGETS, Memory
from api.cache.rendering import MAX_BODY_BYTES
from ops.gunicorn.wire import Ready
from tests.api.cache.harness import JSON, entry, policy

Wire = dict[bytes, Ready]
POLICY = policy()
LARGE = 10**9


def sized(key: str, body: bytes = b"") -> Entry:
    return entry(body, policy=POLICY, key=key)


def test_least_recently_used_is_out_first() -> None:
    memory = Memory({}, max_entries=3)
    for key in "abc":
        memory.put(sized(key), ())
    memory.get("a")
    memory.put(sized("d"), ())
    assert [key for key in "abcd" if memory.get(key)] == ["a", "c", "d"]
    memory.put(sized("c"), ())  # in place of the other, and newest now
    memory.put(sized("e"), ())
    assert [key for key in "abcde" if memory.get(key)] == ["c", "d", "e"]
    assert memory.evictions == {"full": 2}


def test_bytes_are_bounded() -> None:
    size = sized("a", bytes(1000)).size
    memory = Memory({}, max_bytes=10 * size)
    for number in range(1000):
        memory.put(sized(f"{number:03}", bytes(number)), ())
        assert memory.bytes <= 10 * size
    assert memory.get("999")
    memory.clear()
    assert (memory.bytes, len(memory)) == (0, 0)


def test_what_is_too_large_pushes_nothing_out() -> None:
    memory = Memory({}, max_bytes=10 * sized("a").size)
    memory.put(sized("a"), ())
    memory.put(sized("b", bytes(10_000)), ("tag",))
    assert memory.get("a")
    assert not memory.get("b")
    memory.put(sized("a", bytes(10_000)), ())  # the old one is not valid any more, either
    assert (memory.get("a"), memory.bytes, memory._dependents) == (None, 0, {})


def test_of_no_bytes_it_holds_nothing() -> None:
    wire: Wire = {}
    memory = Memory(wire, max_bytes=0)
    held = sized("a")
    memory.put(held, ("tag",))
    memory.learn(held, b"/a")
    assert memory.get("a") is None
    assert (len(memory), memory.bytes, memory.evictions, wire) == (0, 0, {}, {})


def test_what_may_be_stored_fits() -> None:
    memory = Memory({})
    memory.put(sized("a", bytes(MAX_BODY_BYTES)), ())
    assert memory.get("a")


@pytest.mark.parametrize("size", [10, 900, 2000, 16_500, 165_000])
def test_bytes_are_counted_honestly(size: int) -> None:
    """Against Python's allocations for entries with all codings, both forms and two request targets each."""
    wire: Wire = {}
    memory = Memory(wire, max_bytes=LARGE)
    words = b",".join(b'{"id":%d,"low_price":"%d.99"}' % (n, n * 7919 % 1000) for n in range(size))[:size]
    defaults = [(b"date", b"Wed, 01 Jan 2020 00:00:00 GMT")]
    gc.collect()
    tracemalloc.start()
    for number in range(100):
        made = sized(f"products?limit={number}", b"%03d" % number + words)
        memory.put(made, ("shop.product", "shop.category"))
        for coding in (b"", b"gzip", b"zstd"):
            representation = made.select(Conditions(coding))
            representation.write(defaults, b"", head_only=False)
            if representation.not_modified:
                representation.not_modified.write(defaults, b"", head_only=False)
        for asked in (b"/a?limit=%d", b"/a?limit=%d&"):
            memory.learn(made, asked % number)
    del made, representation
    gc.collect()
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory.bytes / 2 < allocated < memory.bytes * 1.1
    assert len(wire) == 200


def test_who_leaves_waits_for_no_garbage_collection() -> None:
    gc.collect()
    gc.disable()
    try:
        memory = Memory({}, max_entries=2)
        for number in range(10):
            made = sized(f"{number}", bytes(2000))
            memory.put(made, ("tag",))
            memory.learn(made, b"/%d" % number)
            for coding in (b"", b"gzip", b"zstd"):
                made.select(Conditions(coding)).write([], b"", head_only=False)
                made.select(Conditions(coding, b"*")).write([], b"", head_only=False)
        memory.clear()
        del made
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_invalidate() -> None:
    memory = Memory({})
    memory.put(sized("list"), ("product", "category"))
    memory.put(sized("seven"), ("product:7", "product:*", "category"))
    memory.put(sized("eight"), ("product:8", "product:*", "category"))
    memory.invalidate(["product", "product:7"])
    assert [key for key in ("list", "seven", "eight") if memory.get(key)] == ["eight"]
    memory.invalidate(["order"])
    assert memory.get("eight")
    memory.invalidate(["category", "product:*"])
    assert (len(memory), memory.bytes, memory._dependents) == (0, 0, {})
    assert memory.evictions == {"invalidated": 3}


def test_who_leaves_is_not_sent_any_more() -> None:
    wire: Wire = {}
    memory = Memory(wire)
    leaves: list[Callable[[], None]] = [
        lambda: memory.invalidate(["tag"]),
        lambda: memory.drop("a"),
        memory.clear,
    ]
    for leave in leaves:
        held = sized("a")
        held.trusted_until = time.monotonic() + 100
        memory.put(held, ("tag",))
        memory.learn(held, b"/a")
        assert wire == {b"/a": held}
        leave()
        assert wire == {}
        assert (held.trusted_until, held.raw_targets, memory.bytes) == (0, set(), 0)


def test_targets_of_successors_are_learnt_anew() -> None:
    wire: Wire = {}
    memory = Memory(wire)
    old, new = sized("a"), sized("a")
    memory.put(old, ())
    memory.learn(old, b"/a")
    memory.learn(old, b"/a?")
    memory.put(new, ())
    assert wire == {}
    memory.learn(new, b"/a")
    memory.learn(old, b"/a?")  # by a request that still holds it
    assert wire == {b"/a": new}
    memory.clear()
    assert wire == {}


def test_targets_are_bounded() -> None:
    wire: Wire = {}
    memory = Memory(wire)
    held = sized("a")
    memory.put(held, ())
    without = memory.bytes
    for number in range(3 * MAX_TARGETS):
        memory.learn(held, b"/a?" + b"&" * number)
        memory.learn(held, b"/a?" + b"&" * number)
    memory.learn(held, b"/a?" + b"&" * MAX_TARGET_BYTES)
    assert len(wire) == len(held.raw_targets) == MAX_TARGETS
    assert memory.bytes - without == sum(map(len, wire))
    other = sized("b")
    memory.put(other, ())
    memory.learn(other, b"/b?" + b"&" * MAX_TARGET_BYTES)
    memory.learn(sized("c"), b"/c")  # which is not kept
    assert len(wire) == MAX_TARGETS


def test_targets_take_their_bytes_from_others() -> None:
    memory = Memory({}, max_bytes=9 * sized("a").size + MAX_TARGET_BYTES)
    entries = [sized(key) for key in "abcdefghi"]
    for each in entries:
        memory.put(each, ())
    for number in range(2):
        memory.learn(entries[-1], b"/%d" % number + b"&" * (MAX_TARGET_BYTES - 2))
    assert [memory.get(key) for key in "abi"] == [None, *entries[1::7]]


def test_the_targets_that_were_learnt_last_are_known_longest() -> None:
    recent: dict[bytes, None] = {}
    memory = Memory({}, recent)
    for name in (b"hot", *map(b"%d".__mod__, range(MAX_RECENT_TARGETS - 1)), b"hot", b"new"):
        held = sized("a")
        memory.put(held, ())
        memory.learn(held, name)
    assert len(recent) == MAX_RECENT_TARGETS
    assert [*recent][-2:] == [b"hot", b"new"]


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcdefgh"), st.integers(0, 3000)),
    st.tuples(st.just("get"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("drop"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("learn"), st.sampled_from("abcdefgh"), st.sampled_from([b"/1", b"/2", b"/3"])),
    st.tuples(st.just("invalidate"), st.sampled_from(["x", "y", "z"])),
)
TAGS = {"a": ("x",), "b": ("x", "y"), "c": ("y", "z"), "d": (), "e": ("z",)}


@given(st.lists(steps, max_size=60))
def test_whatever_happens_the_books_are_right(taken: list[tuple[Any, ...]]) -> None:
    wire: Wire = {}
    memory = Memory(wire, max_bytes=200_000, max_entries=5)
    for step, at, *more in taken:
        if step == "put":
            memory.put(entry(bytes(more[0]), JSON, policy=POLICY, key=at), TAGS.get(at, ()))
        elif step == "learn":
            held = memory.get(at)
            if held:
                memory.learn(held, b"/" + at.encode() + more[0])
        elif step == "invalidate":
            memory.invalidate([at])
        else:
            getattr(memory, step)(at)
    entries = [held for held, _, _ in memory._entries.values()]
    learnt = {target for held in entries for target in held.raw_targets}
    assert memory.bytes == sum(held.size for held in entries) + sum(map(len, learnt))
    assert set(wire) == learnt
    assert {key for keys in memory._dependents.values() for key in keys} == {
        held.key for held in entries if TAGS.get(held.key)
    }
    assert len(memory) <= 5


def test_an_entry_of_a_clock_that_is_ahead_is_stale() -> None:
    """Its age is unknown: it could be fresh for as long as the clock is ahead."""
    now = time.monotonic()
    ahead = entry(policy=POLICY, created=time.time() + 45)
    assert ahead.fresh_until <= time.monotonic()
    assert ahead.stale_until - ahead.fresh_until == POLICY.stale
    age = dict(ahead.age_and_status.fields(b"hit; ttl=%d"))
    assert abs(int(age[b"age"]) - POLICY.fresh) <= 1
    assert re.search(rb"ttl=(0|-1|1)$", age[b"cache-status"])
    assert entry(policy=POLICY, created=time.time() + 0.5).fresh_until > now + POLICY.fresh - 1
