"""The breaker: when it opens, what is refused while it is open, when it closes."""

import asyncio
from contextvars import ContextVar

import pytest

from ops.breaker import MAX_FAILURES, Breaker
from tests.loops import until

MIN_PROBES = 3


request: ContextVar[str | None] = ContextVar("request", default=None)


class Patient:
    """The dependency that the breaker protects; it fails until it is set to be well."""

    def __init__(self) -> None:
        self.well, self.probes = False, 0
        self.request: str | None = None  # of the last probe

    async def probe(self) -> None:
        self.probes += 1
        self.request = request.get()
        if not self.well:
            raise OSError("still ill")


@pytest.fixture
def patient() -> Patient:
    return Patient()


@pytest.fixture
def breaker(runner: asyncio.Runner, patient: Patient) -> Breaker:
    return Breaker("Redis", patient.probe, probe_seconds=0.01, min_probes=MIN_PROBES)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(OSError("gone"))


async def test_opens_with_one_failure_too_many(breaker: Breaker) -> None:
    fail(breaker, MAX_FAILURES - 1)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open
    assert breaker.failures.total() == MAX_FAILURES
    await breaker.close()


async def test_only_failures_in_a_row_count(breaker: Breaker) -> None:
    fail(breaker, MAX_FAILURES - 1)
    breaker.succeeded()
    fail(breaker, MAX_FAILURES - 1)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open
    await breaker.close()


async def test_closes_when_some_probes_are_answered(breaker: Breaker, patient: Patient) -> None:
    fail(breaker, MAX_FAILURES + 3)
    await until(lambda: patient.probes >= 3)
    assert breaker.is_open
    patient.well, probes = True, patient.probes
    await until(lambda: not breaker.is_open)
    assert patient.probes == probes + MIN_PROBES
    probes = patient.probes
    fail(breaker, MAX_FAILURES - 1)  # the earlier ones are forgotten
    assert not breaker.is_open
    fail(breaker, 1)
    await until(lambda: patient.probes == probes + 1)
    await breaker.close()


async def test_a_probe_is_no_part_of_the_request_that_failed(breaker: Breaker, patient: Patient) -> None:
    token = request.set("the-id")
    fail(breaker, MAX_FAILURES)
    request.reset(token)
    await until(lambda: patient.probes)
    assert patient.request is None
    await breaker.close()


async def test_one_probing_at_a_time(breaker: Breaker) -> None:
    fail(breaker, 3 * MAX_FAILURES)
    assert len(asyncio.all_tasks()) == 2  # this one and the probing
    await breaker.close()


async def test_nothing_goes_on_after_close(breaker: Breaker) -> None:
    fail(breaker, MAX_FAILURES)
    await breaker.close()
    fail(breaker, 2 * MAX_FAILURES)
    assert breaker.is_open
    assert len(asyncio.all_tasks()) == 1
