"""The limit: what it counts, and how it follows the lag."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
from pytest_django import Settings

from ops.asgi import admission as module
from ops.asgi.admission import FIRST, KEPT_SHARE, LEAST, MAX_WAIT_SECONDS, MOST, Admission, Limit
from ops.asgi.types import Message
from ops.telemetry.stopwatch import Stopwatch, current
from tests.loops import until

LATE, IN_TIME = 4 * MAX_WAIT_SECONDS, 0.0


def look(admission: Limit, lag: float, times: int = 1, *, refuses: bool = False) -> int:
    for _ in range(times):
        if refuses:
            admission.count_refusal()
        admission.look(lag)
    return admission.limit


def test_lag_lowers_the_limit_and_its_end_raises_it() -> None:
    admission = Limit()
    assert look(admission, IN_TIME, 100) == FIRST  # nothing was refused: it need not rise
    fallen = look(admission, LATE, 3)
    assert LEAST < fallen < FIRST / 2
    assert look(admission, LATE, 100) == LEAST
    assert look(admission, IN_TIME, 50) == LEAST
    assert LEAST < look(admission, IN_TIME, 50, refuses=True) < LEAST + 51
    assert look(admission, IN_TIME, 2 * MOST, refuses=True) == MOST


def test_one_late_look_is_no_lag() -> None:
    admission = Limit()
    assert look(admission, LATE) == FIRST


@pytest.mark.usefixtures("restored")
def test_a_fixed_limit(settings: Settings) -> None:
    """It stays, and what has been refused is forgotten as with one that adapts."""

    async def run() -> None:
        admission = module.admission
        async with module.control_admission():
            admission.count_refusal()
            await until(lambda: not admission._refused and not admission._refused_before)
            admission.look(LATE)
            assert admission.limit == 3

    settings.ADMISSION_LIMIT = 3
    asyncio.run(run())


@pytest.mark.usefixtures("restored")
def test_an_idle_worker_looks_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a request has begun or is being computed, or while the last overload is not over."""
    pauses: list[float] = []
    admission, sleep = module.admission, asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        match len(pauses):
            case 2:
                admission.begun += 1
            case 4:
                admission.active = 1
            case 6:
                admission.active = 0
            case 8:
                admission._wait = 10 * MAX_WAIT_SECONDS
            case 9:
                admission._wait = 0.0
        await sleep(0)

    async def run() -> None:
        async with module.control_admission():
            await until(lambda: len(pauses) > 10)

    monkeypatch.setattr(module, "sleep", pause)
    admission.begun = 0
    asyncio.run(run())
    often, seldom = module.LOOK_SECONDS, module.IDLE_LOOK_SECONDS
    assert pauses[:8] == [seldom, seldom, often, seldom, often, often, seldom, seldom]
    assert pauses[8:11] == [often, seldom, seldom]


@pytest.fixture
def restored() -> Iterator[None]:
    before = vars(module.admission).copy()
    yield
    vars(module.admission).update(before)


def test_a_place_is_kept_for_writes() -> None:
    admission = Limit()
    admission.active = FIRST - 1
    assert admission.has_place()
    admission.active = FIRST
    assert not admission.has_place()
    assert admission.has_place(is_kept=True)
    admission.active = int(FIRST * (1 + KEPT_SHARE))
    assert not admission.has_place(is_kept=True)


def test_what_comes_in_one_turn_is_counted_while_others_are_refused() -> None:
    """As many as there are places for. The turn has ended before the first of them is computed."""

    async def read(admission: Limit, number: int) -> int:
        found = sum(admission.find_place() for _ in range(number))
        await asyncio.sleep(0)
        return found

    admission = Limit()
    assert asyncio.run(read(admission, FIRST + 2)) == FIRST + 2  # they may need no computing
    admission.count_refusal()
    for _ in range(2):
        admission.active = admission.limit - 2
        assert [asyncio.run(read(admission, 5)) for _ in range(2)] == [2, 2]
        admission.look(IN_TIME)
    assert asyncio.run(read(admission, 5)) == 5


def test_a_refusal_is_filed_under_its_route(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "POST", "path": "/api/products", "headers": []}
    monkeypatch.setattr(module.admission, "active", 2 * MOST)
    token = current.set(watch := Stopwatch(b"id"))
    asyncio.run(Admission(cast("Any", None))(scope, cast("Any", None), send))  # type: ignore[arg-type]
    current.reset(token)
    assert (sent[0]["status"], watch.route, watch.code) == (503, "api/products", "overloaded")
