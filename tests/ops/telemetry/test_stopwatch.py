"""The stages of a request tile its time, whatever runs side by side."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from asgiref.sync import sync_to_async

from ops.telemetry import stopwatch
from ops.telemetry.stopwatch import CACHE, DB, MIDDLEWARE, QUEUE, SERIALISATION, STAGES, Stopwatch, current


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "perf_counter", clock)
    token = current.set(None)
    yield clock
    current.reset(token)


def times(watch: Stopwatch) -> dict[str, float]:
    total = watch.lap()
    assert sum(watch.seconds) == pytest.approx(total, abs=1e-12)
    return {stage.name: seconds for stage, seconds in zip(STAGES, watch.seconds, strict=True) if seconds}


def start() -> Stopwatch:
    watch = Stopwatch(b"id")
    current.set(watch)
    return watch


def test_stages_tile_the_time(clock: Clock) -> None:
    watch = start()
    clock.now = 1
    with QUEUE:
        clock.now = 3
    with DB:
        clock.now = 6
        with SERIALISATION:  # the inner stage has the time
            clock.now = 10
        clock.now = 11
    clock.now = 12
    stopwatch.respond()
    clock.now = 15
    stopwatch.respond()
    with DB:  # a stream that reads
        clock.now = 16
    assert times(watch) == {"middleware": 2, "queue": 2, "db": 5, "serialisation": 4, "response": 3}


def test_what_no_stage_claims_changes_hands(clock: Clock) -> None:
    watch = start()
    clock.now = 1
    watch.claim(CACHE)  # and what came before it
    clock.now = 3
    watch.rebase(MIDDLEWARE)  # from now on
    clock.now = 6
    with DB:
        clock.now = 10
    assert times(watch) == {"cache": 3, "middleware": 3, "db": 4}


def test_a_stage_ends_with_an_exception(clock: Clock) -> None:
    watch = start()

    def fail() -> None:
        with DB:
            clock.now = 1
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  its own
        fail()
    clock.now = 3
    assert times(watch) == {"db": 1, "middleware": 2}


def test_interleaved_requests(clock: Clock) -> None:
    """Two requests on one loop: each has its own times, though the other runs in between."""

    async def request(turns: asyncio.Queue[float], told: asyncio.Queue[None]) -> dict[str, float]:
        watch = start()
        with DB:
            clock.now = await turns.get()
            told.put_nowait(None)
            clock.now = await turns.get()
            told.put_nowait(None)
        clock.now = await turns.get()
        told.put_nowait(None)
        return times(watch)

    async def both() -> list[dict[str, float]]:
        told: asyncio.Queue[None] = asyncio.Queue()
        queues: list[asyncio.Queue[float]] = [asyncio.Queue(), asyncio.Queue()]
        tasks = [asyncio.create_task(request(queue, told)) for queue in queues]  # the second begins at 1
        for now, which in [(1, 0), (2, 1), (4, 0), (5, 1), (7, 1), (9, 0)]:
            queues[which].put_nowait(now)
            await told.get()
        return await asyncio.gather(*tasks)

    assert asyncio.run(both()) == [{"db": 4, "middleware": 5}, {"db": 4, "middleware": 2}]


def test_tasks_of_one_request_are_left_in_any_order(clock: Clock) -> None:
    async def part(stage: stopwatch.Stage, entered: asyncio.Event, leave: asyncio.Event) -> None:
        with stage:
            entered.set()
            await leave.wait()

    async def request() -> dict[str, float]:
        watch = start()
        events = [asyncio.Event() for _ in range(4)]
        first = asyncio.create_task(part(DB, *events[:2]))
        await events[0].wait()
        clock.now = 1
        second = asyncio.create_task(part(QUEUE, *events[2:]))
        await events[2].wait()
        clock.now = 3
        events[1].set()  # the one entered first
        await first
        clock.now = 6
        events[3].set()
        await second
        clock.now = 10
        return times(watch)

    assert asyncio.run(request()) == {"db": 1, "queue": 5, "middleware": 4}


def test_a_thread_times_the_request_that_waits_for_it(clock: Clock) -> None:
    def sync_view() -> None:
        with DB:
            clock.now += 2

    async def request() -> dict[str, float]:
        watch = start()
        await sync_to_async(sync_view)()
        clock.now += 1
        return times(watch)

    assert asyncio.run(request()) == {"db": 2, "middleware": 1}


def test_threads_of_one_request_never_fail() -> None:
    watch = Stopwatch(b"id")
    current.set(watch)

    def work() -> None:
        for _ in range(2000):
            with DB, SERIALISATION:
                pass

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(copy_context().run, work) for _ in range(4)]:
            done.result()
    current.set(None)
    assert watch.active == [0]


def test_outside_a_request_nothing_is_timed(clock: Clock) -> None:
    with DB:
        clock.now = 1
    stopwatch.respond()
