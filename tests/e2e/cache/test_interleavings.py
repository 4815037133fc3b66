"""Whatever happens in whichever order, no answer is older than it may be.

Generated runs of reads, writes, losses and restarts over workers of every mode. `CHAOS=long` makes 150 of them, at
random; the gate makes the same 12 each time.
"""

import math
import os
import time

import httpx
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.e2e.cache.fleet import PREFIX, Fleet
from tests.e2e.cache.proxy import REFUSING, SWALLOW

LONG = os.environ.get("CHAOS") == "long"
PRODUCTS = (1, 2)
LIST = "/api/products?limit=2&sort=id&fields=id,demand_qty"
# Seconds for which a change may go unnoticed: the life of an entry in memory and, twice, what a busy machine takes.
WORST = 1.0
UNTOLD = math.inf  # the time of a write that Redis has not heard of
OFF = 3  # the worker without a cache

product = st.sampled_from(PRODUCTS)
worker = st.integers(0, 3)
page = st.sampled_from(("/api/products/{}", "/tests/quick/{}", LIST))
step = st.one_of(
    st.tuples(st.just("read"), worker, page, product),
    st.tuples(st.just("read"), worker, page, product),
    st.tuples(st.just("write"), worker, st.sampled_from(("native", "orm")), product),
    st.tuples(st.just("write_unheard"), product),
    st.tuples(st.just("wait"), st.sampled_from((0.05, 0.3, 0.8))),
    st.tuples(st.just("evict"), st.integers(0, 50), st.integers(1, 4)),
    st.tuples(st.just("let_expire"), st.integers(0, 50)),
    st.tuples(st.just("repeat_messages")),
    st.tuples(st.just("deafen"), worker),
    st.tuples(st.just("delay"), worker, st.sampled_from((0.02, 0.08))),
    st.tuples(st.just("part"), worker),
    st.tuples(st.just("heal"), worker),
    st.tuples(st.just("heal"), worker),
    st.tuples(st.just("flush")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("freeze"), st.sampled_from((0.02, 0.2))),
)


class Run:
    """What was written when, and what each worker has answered."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.redis = fleet.valkey.client
        self.parted: set[int] = set()
        self.seen: dict[tuple[int, int], int] = {}
        self.written: dict[int, list[tuple[float, int, int | None]]] = {}
        for number in PRODUCTS:
            kept = _value(fleet.members[-1].get(f"/api/products/{number}"), number)
            self.written[number] = [(0.0, kept, None)]

    def read(self, worker: int, page: str, product: int) -> None:
        began = time.monotonic()
        response = self.fleet.members[worker].get(page.format(product))
        assert response.status_code == 200
        value = _value(response, product)
        note(f"{product} has {value} by {response.headers.get('cache-status')}")
        due = [v for at, v, by in self.written[product] if by == worker or at < began - WORST]
        assert value >= max(due), "older than it may be"
        assert value >= self.seen.get((worker, product), 0), "older than what was answered before"
        assert value <= max(v for _, v, _ in self.written[product]), "never written"
        self.seen[worker, product] = value

    def write(self, worker: int, way: str, product: int) -> None:
        value = int(self.fleet.members[worker].post(f"/tests/{way}/{product}").text)
        at = UNTOLD if worker in self.parted else time.monotonic()
        self.written[product].append((at, value, worker))

    def write_unheard(self, product: int) -> None:
        value = self.fleet.write_unheard(product)
        self.written[product].append((time.monotonic(), value, None))

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def evict(self, first: int, number: int) -> None:
        keys = sorted(self.redis.keys(f"{PREFIX}:*"))
        for key in [*keys, *keys][first % max(1, len(keys)) :][:number]:
            self.redis.delete(key)

    def let_expire(self, at: int) -> None:
        if tags := sorted(self.redis.keys(f"{PREFIX}:tag:*")):
            self.redis.pexpire(tags[at % len(tags)], 1)

    def repeat_messages(self) -> None:
        for tag in ("products.product", "products.product:1", "no such model:7"):
            self.redis.publish(f"{PREFIX}:changed", f'["{tag}"]')
        self.redis.publish(f"{PREFIX}:changed", b"\xff not ours")

    def deafen(self, worker: int) -> None:
        self.fleet.members[worker].redis.turn(subscriptions=SWALLOW)

    def delay(self, worker: int, seconds: float) -> None:
        self.fleet.members[worker].redis.turn(delay=seconds)

    def part(self, worker: int) -> None:
        """The worker cannot reach Redis, and the others can: what it writes, they cannot know."""
        if worker != OFF:  # which does not tell later
            self.fleet.members[worker].redis.turn(door=REFUSING)
            self.parted.add(worker)

    def heal(self, worker: int) -> None:
        self.fleet.members[worker].redis.clear()
        self.parted.discard(worker)
        now = time.monotonic()
        for product, written in self.written.items():
            self.written[product] = [
                (now if at == UNTOLD and by == worker else at, v, by) for at, v, by in written
            ]

    def flush(self) -> None:
        self.redis.flushall()

    def restart(self) -> None:
        self.fleet.valkey.stop()
        self.fleet.valkey.start()

    def freeze(self, seconds: float) -> None:
        self.fleet.valkey.freeze()
        time.sleep(seconds)
        self.fleet.valkey.thaw()


@settings(
    max_examples=int(os.environ.get("N", 150)) if LONG else 12,
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(step, min_size=15, max_size=40))
def test_no_answer_is_older_than_it_may_be(mixed: Fleet, steps: list[tuple[str, ...]]) -> None:
    mixed.flush()
    run = Run(mixed)
    for name, *arguments in steps:
        getattr(run, name)(*arguments)
    for worker in range(len(mixed.members)):
        run.heal(worker)
    time.sleep(WORST)
    for worker in range(len(mixed.members)):
        for number in PRODUCTS:
            for path in ("/api/products/{}", "/tests/quick/{}", LIST):
                run.read(worker, path, number)


def _value(response: httpx.Response, product: int) -> int:
    found = response.json()
    rows = found["results"] if "results" in found else [found]
    return next(int(row["demand_qty"]) for row in rows if row["id"] == product)
