"""In any order of events, no answer is older than it may be.

Generated runs of writes, losses and outages under load over workers of every mode. `CHAOS=long` makes 100 of them at
random, which takes six minutes; the gate makes the same few each time.
"""

import asyncio
import math
import os
import time
from collections.abc import Iterable
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.cache.client import Address, Answer, load
from tests.e2e.cache.fleet import PREFIX, Fleet
from tests.e2e.cache.proxy import REFUSING, SWALLOW

LONG = os.environ.get("CHAOS") == "long"
PRODUCTS = 1, 2
LIST = "/api/products?limit=2&sort=id&fields=id,demand_qty"
PAGES = [LIST, *(page + str(number) for page in ("/api/products/", "/tests/quick/") for number in PRODUCTS)]
WORST = 1.0  # seconds until a write is seen everywhere, without messages and without Redis, too
UNTOLD = math.inf  # the time of a write of which Redis cannot have heard yet
ON, ANOTHER, L2, OFF = range(4)  # the workers by their modes

worker, product = st.integers(0, 3), st.sampled_from(PRODUCTS)
step = st.one_of(
    st.tuples(st.just("write"), worker, st.sampled_from(("native", "orm")), product),
    st.tuples(st.just("write"), worker, st.sampled_from(("native", "orm")), product),
    st.tuples(st.just("write_unheard"), product),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.05, 0.3, 0.8))),
    st.tuples(st.just("wait"), st.sampled_from((0.0, 0.05, 0.3, 0.8))),
    st.tuples(st.just("evict"), st.integers(0, 50), st.integers(1, 4)),
    st.tuples(st.just("let_expire"), st.integers(0, 50)),
    st.tuples(st.just("repeat_messages")),
    st.tuples(st.just("deafen"), worker),
    st.tuples(st.just("delay"), worker, st.sampled_from((0.02, 0.08))),
    st.tuples(st.just("part"), worker),
    st.tuples(st.just("heal"), worker),
    st.tuples(st.just("flush")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("freeze")),
    st.tuples(st.just("thaw")),
)


class Run:
    """The faults of the fleet, and each write with its time and its worker."""

    def __init__(self, fleet: Fleet) -> None:
        self.members, self.valkey, self.fleet = fleet.members, fleet.valkey, fleet
        self.parted: set[int] = set()
        self.is_frozen = False
        self.written: list[tuple[int, float, int, Address | None]] = []
        for number in PRODUCTS:
            [value] = _values(orjson.loads(self.members[OFF].get(f"/api/products/{number}").content)).values()
            self.written.append((number, 0.0, value, None))

    def write(self, worker: int, way: str, product: int) -> None:
        if (
            worker == OFF and self.is_frozen
        ):  # it has no page cache: an invalidation that it cannot publish at once is lost
            return
        member = self.members[worker]
        value = int(member.post(f"/tests/{way}/{product}").text)
        at = UNTOLD if worker in self.parted else time.monotonic()
        self.written.append((product, at, value, member.address))

    def write_unheard(self, product: int) -> None:
        if not self.is_frozen:
            value = self.fleet.write_unheard(product)
            self.written.append((product, time.monotonic(), value, None))

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def evict(self, first: int, number: int) -> None:
        keys = self._keys("*")
        for key in [*keys, *keys][first % max(1, len(keys)) :][:number]:
            self.valkey.client.delete(key)

    def let_expire(self, at: int) -> None:
        if tags := self._keys("tag:*"):
            self.valkey.client.pexpire(tags[at % len(tags)], 1)

    def repeat_messages(self) -> None:
        if not self.is_frozen:
            for message in (b'["shop.product"]', b'["shop.product:1", "none:7"]', b"\xff not ours"):
                self.valkey.client.publish(f"{PREFIX}:changed", message)

    def deafen(self, worker: int) -> None:
        self.members[worker].redis.turn(subscriptions=SWALLOW)

    def delay(self, worker: int, seconds: float) -> None:
        self.members[worker].redis.turn(delay=seconds)

    def part(self, worker: int) -> None:
        """The worker cannot reach Redis, and the others can: they cannot know of its writes."""
        if worker != OFF:
            self.members[worker].redis.turn(door=REFUSING)
            self.parted.add(worker)

    def heal(self, worker: int) -> None:
        self.members[worker].redis.clear()
        if worker in self.parted:
            self.parted.discard(worker)
            now, healed = time.monotonic(), self.members[worker].address
            self.written = [
                (n, now if at == UNTOLD and by == healed else at, v, by) for n, at, v, by in self.written
            ]

    def flush(self) -> None:
        if not self.is_frozen:
            self.valkey.client.flushall()

    def restart(self) -> None:
        self.valkey.stop()
        self.valkey.start()
        self.is_frozen = False

    def freeze(self) -> None:
        self.valkey.freeze()
        self.is_frozen = True

    def thaw(self) -> None:
        self.valkey.thaw()
        self.is_frozen = False

    def end(self) -> None:
        self.thaw()
        for number in range(len(self.members)):
            self.heal(number)
        time.sleep(WORST)

    def _keys(self, pattern: str) -> list[Any]:
        return [] if self.is_frozen else sorted(self.valkey.client.keys(f"{PREFIX}:{pattern}"))

    def check(self, answers: Iterable[Answer]) -> None:
        for answer in answers:
            assert answer.status == 200
            for product, value in _values(orjson.loads(answer.body)).items():
                writes = [write for write in self.written if write[0] == product]
                due = [
                    v for _, at, v, by in writes if at < answer.began - (0 if by == answer.address else WORST)
                ]
                assert max(due) <= value <= max(v for _, _, v, _ in writes), answer


@settings(
    max_examples=100 if LONG else 6,
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(step, min_size=15, max_size=40))
def test_no_answer_is_older_than_it_may_be(mixed: Fleet, steps: list[tuple[str, ...]]) -> None:
    async def scenario() -> list[Answer]:
        async with load(mixed.addresses, PAGES, 0.003) as answered:
            try:
                for name, *arguments in steps:
                    await asyncio.to_thread(getattr(run, name), *arguments)
            finally:
                await asyncio.to_thread(run.end)
        assert not answered.errors
        return answered.answers

    mixed.flush()
    run = Run(mixed)
    run.check(asyncio.run(scenario()))


def _values(found: dict[str, Any]) -> dict[int, int]:
    """The counters in an answer."""
    return {row["id"]: row["demand_qty"] for row in found.get("results", [found])}
