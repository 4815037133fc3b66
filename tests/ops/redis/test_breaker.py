"""The breaker: when it opens, who is asked while it is open, when it closes."""

import asyncio

import pytest

from ops.redis import breaker as module
from ops.redis.breaker import FAILURES, PROBES, Breaker
from tests.loops import until


class Patient:
    """What the breaker protects; ill until it is said to be well."""

    def __init__(self) -> None:
        self.well, self.probes = False, 0

    async def probe(self) -> None:
        self.probes += 1
        if not self.well:
            raise OSError("still ill")


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
def breaker(runner: asyncio.Runner, patient: Patient, monkeypatch: pytest.MonkeyPatch) -> Breaker:
    monkeypatch.setattr(module, "PAUSE", 0.01)
    return Breaker("Redis", patient.probe)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(OSError("gone"))


async def test_opens_with_one_failure_too_many(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open
    assert breaker.failures == FAILURES
    await breaker.close()


async def test_only_failures_in_a_row_count(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open
    await breaker.close()


async def test_closes_when_some_probes_are_answered(breaker: Breaker, patient: Patient) -> None:
    fail(breaker, FAILURES + 3)
    await until(lambda: patient.probes >= 3)
    assert breaker.is_open
    patient.well, probes = True, patient.probes
    await until(lambda: not breaker.is_open)
    assert patient.probes == probes + PROBES
    probes = patient.probes
    fail(breaker, FAILURES - 1)  # the earlier ones are forgotten
    assert not breaker.is_open
    fail(breaker, 1)
    await until(lambda: patient.probes == probes + 1)
    await breaker.close()


async def test_one_probing_at_a_time(breaker: Breaker) -> None:
    fail(breaker, 3 * FAILURES)
    assert len(asyncio.all_tasks()) == 2  # this one and the probing
    await breaker.close()


async def test_nothing_goes_on_after_close(breaker: Breaker) -> None:
    fail(breaker, FAILURES)
    await breaker.close()
    fail(breaker, 2 * FAILURES)
    assert breaker.is_open
    assert len(asyncio.all_tasks()) == 1
