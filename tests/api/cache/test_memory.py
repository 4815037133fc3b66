"""The worker's memory: its bounds, what leaves first, what leaves with what."""

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cache.conditions import Conditions
from api.cache.entry import LONGEST_SPELLING, MOST_SPELLINGS, Entry
from api.cache.memory import Memory
from api.cache.rendering import MOST_BODY
from ops.asgi.wire import Ready
from tests.api.cache.harness import JSON, entry, policy

Wire = dict[bytes, Ready]
POLICY = policy()
LARGE = 10**9


def sized(key: str, body: bytes = b"") -> Entry:
    return entry(body, policy=POLICY, key=key)


def test_least_recently_used_is_out_first() -> None:
    memory = Memory({}, most_entries=3)
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
    memory = Memory({}, most_bytes=10 * size)
    for number in range(1000):
        memory.put(sized(f"{number:03}", bytes(number)), ())
        assert memory.bytes <= 10 * size
    assert memory.get("999")
    memory.clear()
    assert (memory.bytes, len(memory)) == (0, 0)


def test_what_is_too_large_pushes_nothing_out() -> None:
    memory = Memory({}, most_bytes=10 * sized("a").size)
    memory.put(sized("a"), ())
    memory.put(sized("b", bytes(10_000)), ("tag",))
    assert memory.get("a")
    assert not memory.get("b")
    memory.put(sized("a", bytes(10_000)), ())  # the old one is not valid any more, either
    assert (memory.get("a"), memory.bytes, memory._dependents) == (None, 0, {})


def test_what_may_be_stored_fits() -> None:
    memory = Memory({})
    memory.put(sized("a", bytes(MOST_BODY)), ())
    assert memory.get("a")


@pytest.mark.parametrize("size", [10, 900, 2000, 16_500, 165_000])
def test_bytes_are_counted_honestly(size: int) -> None:
    """Against what Python allocates for entries with all codings, both forms and two spellings each."""
    wire: Wire = {}
    memory = Memory(wire, most_bytes=LARGE)
    words = b",".join(b'{"id":%d,"low_price":"%d.99"}' % (n, n * 7919 % 1000) for n in range(size))[:size]
    defaults = [(b"date", b"Wed, 01 Jan 2020 00:00:00 GMT")]
    gc.collect()
    tracemalloc.start()
    for number in range(100):
        made = sized(f"products?limit={number}", b"%03d" % number + words)
        memory.put(made, ("products.product", "products.category"))
        for coding in (b"", b"gzip", b"zstd"):
            representation = made.select(Conditions(coding))
            representation.write(defaults, head_only=False)
            if representation.not_modified:
                representation.not_modified.write(defaults, head_only=False)
        for spelling in (b"/a?limit=%d", b"/a?limit=%d&"):
            memory.spell(made, spelling % number)
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
        memory = Memory({}, most_entries=2)
        for number in range(10):
            made = sized(f"{number}", bytes(2000))
            memory.put(made, ("tag",))
            memory.spell(made, b"/%d" % number)
            for coding in (b"", b"gzip", b"zstd"):
                made.select(Conditions(coding)).write([], head_only=False)
                made.select(Conditions(coding, b"*")).write([], head_only=False)
        memory.clear()
        del made
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_forget() -> None:
    memory = Memory({})
    memory.put(sized("list"), ("product", "category"))
    memory.put(sized("seven"), ("product:7", "product:*", "category"))
    memory.put(sized("eight"), ("product:8", "product:*", "category"))
    memory.forget(["product", "product:7"])
    assert [key for key in ("list", "seven", "eight") if memory.get(key)] == ["eight"]
    memory.forget(["order"])
    assert memory.get("eight")
    memory.forget(["category", "product:*"])
    assert (len(memory), memory.bytes, memory._dependents) == (0, 0, {})
    assert memory.evictions == {"invalidated": 3}


def test_who_leaves_is_not_sent_any_more() -> None:
    wire: Wire = {}
    memory = Memory(wire)
    leaves: list[Callable[[], None]] = [
        lambda: memory.forget(["tag"]),
        lambda: memory.drop("a"),
        memory.clear,
    ]
    for leave in leaves:
        held = sized("a")
        held.calm_until = held.live_until = time.monotonic() + 100
        memory.put(held, ("tag",))
        memory.spell(held, b"/a")
        assert wire == {b"/a": held}
        leave()
        assert wire == {}
        assert (held.calm_until, held.live_until, memory.bytes) == (0, 0, 0)


def test_successors_are_spelled_anew() -> None:
    wire: Wire = {}
    memory = Memory(wire)
    old, new = sized("a"), sized("a")
    memory.put(old, ())
    memory.spell(old, b"/a")
    memory.spell(old, b"/a?")
    memory.put(new, ())
    assert wire == {}
    memory.spell(new, b"/a")
    memory.spell(old, b"/a?")  # by a request that still holds it
    assert wire == {b"/a": new}
    memory.clear()
    assert wire == {}


def test_spellings_are_bounded() -> None:
    wire: Wire = {}
    memory = Memory(wire)
    held = sized("a")
    memory.put(held, ())
    without = memory.bytes
    for number in range(3 * MOST_SPELLINGS):
        memory.spell(held, b"/a?" + b"&" * number)
        memory.spell(held, b"/a?" + b"&" * number)
    memory.spell(held, b"/a?" + b"&" * LONGEST_SPELLING)
    assert len(wire) == len(held.targets) == MOST_SPELLINGS
    assert memory.bytes - without == sum(map(len, wire))
    other = sized("b")
    memory.put(other, ())
    memory.spell(other, b"/b?" + b"&" * LONGEST_SPELLING)
    memory.spell(sized("c"), b"/c")  # which is not kept
    assert len(wire) == MOST_SPELLINGS


steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abcdefgh"), st.integers(0, 3000)),
    st.tuples(st.just("get"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("drop"), st.sampled_from("abcdefgh")),
    st.tuples(st.just("spell"), st.sampled_from("abcdefgh"), st.sampled_from([b"/1", b"/2", b"/3"])),
    st.tuples(st.just("forget"), st.sampled_from(["x", "y", "z"])),
)
TAGS = {"a": ("x",), "b": ("x", "y"), "c": ("y", "z"), "d": (), "e": ("z",)}


@given(st.lists(steps, max_size=60))
def test_whatever_happens_the_books_are_right(taken: list[tuple[Any, ...]]) -> None:
    wire: Wire = {}
    memory = Memory(wire, most_bytes=200_000, most_entries=5)
    for step, at, *more in taken:
        if step == "put":
            memory.put(entry(bytes(more[0]), JSON, policy=POLICY, key=at), TAGS.get(at, ()))
        elif step == "spell":
            held = memory.get(at)
            if held:
                memory.spell(held, b"/" + at.encode() + more[0])
        elif step == "forget":
            memory.forget([at])
        else:
            getattr(memory, step)(at)
    entries = [held for held, _, _ in memory._entries.values()]
    spelled = {target for held in entries for target in held.targets}
    assert memory.bytes == sum(held.size for held in entries) + sum(map(len, spelled))
    assert set(wire) == spelled
    assert {key for keys in memory._dependents.values() for key in keys} == {
        held.key for held in entries if TAGS.get(held.key)
    }
    assert len(memory) <= 5
