"""Single flight: the leader, the waiters, their results."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from api.cache.flights import Abandoned, Flight, Flights, Found
from tests.api.cache.harness import target

FOUND = Found(None, None, "miss", "none")
TARGET = target()


async def succeed(_: Flight) -> Found:
    return FOUND


async def fail(_: Flight) -> Found:
    raise ValueError("no")


async def never(_: Flight) -> Found:
    await asyncio.Event().wait()
    raise AssertionError


async def joined(flights: Flights, times: int) -> tuple[Flight, list[asyncio.Task[Found]]]:
    flight = flights.begin(TARGET)
    waiting = [asyncio.create_task(flights.join(flight)) for _ in range(times)]
    await asyncio.sleep(0)
    return flight, waiting


async def test_all_get_the_result(runner: asyncio.Runner) -> None:
    flights = Flights()
    flight, waiting = await joined(flights, 3)
    assert flights.get(TARGET.key) is flight
    assert await flights.lead(flight, succeed) is FOUND
    assert await asyncio.gather(*waiting) == [FOUND] * 3
    assert flights.get(TARGET.key) is None


async def test_all_get_the_error(runner: asyncio.Runner) -> None:
    flights = Flights()
    flight, waiting = await joined(flights, 3)
    with pytest.raises(ValueError, match="no"):
        await flights.lead(flight, fail)
    for waiter in waiting:
        with pytest.raises(ValueError, match="no"):
            await waiter
    assert flights.get(TARGET.key) is None


async def test_who_waits_for_a_cancelled_flight_is_told(runner: asyncio.Runner) -> None:
    flights = Flights()
    flight, waiting = await joined(flights, 3)
    leading = asyncio.create_task(flights.lead(flight, never))
    await asyncio.sleep(0)
    leading.cancel()
    assert all(
        isinstance(outcome, Abandoned) for outcome in await asyncio.gather(*waiting, return_exceptions=True)
    )
    with pytest.raises(asyncio.CancelledError):
        await leading
    assert flights.get(TARGET.key) is None


async def test_who_is_cancelled_leaves_the_others(runner: asyncio.Runner) -> None:
    flights = Flights()
    flight, (first, second) = await joined(flights, 2)
    first.cancel()
    await asyncio.sleep(0)
    await flights.lead(flight, succeed)
    assert await second is FOUND
    assert first.cancelled()


@pytest.mark.parametrize("work", [succeed, fail])
async def test_nobody_complains_of_who_is_cancelled_as_the_result_comes(
    runner: asyncio.Runner, work: Any
) -> None:
    """The runner's loop hears of an exception that is never retrieved, and fails the test."""
    flights = Flights()
    flight, waiting = await joined(flights, 1)
    with suppress(ValueError):
        await flights.lead(flight, work)  # in this very step of the loop
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]


async def test_an_error_that_nobody_waits_for(runner: asyncio.Runner) -> None:
    flights = Flights()
    with pytest.raises(ValueError, match="no"):
        await flights.lead(flights.begin(TARGET), fail)


async def test_outdated_flights_are_not_joined(runner: asyncio.Runner) -> None:
    flights = Flights()
    flight, waiting = await joined(flights, 1)
    flights.invalidate(["orders.order"])
    assert flights.get(TARGET.key) is flight
    flights.invalidate(["orders.order", "shop.product"])
    assert flight.outdated
    assert flights.get(TARGET.key) is None
    successor = flights.begin(TARGET)
    await flights.lead(flight, succeed)  # earlier waiters get its result
    assert await waiting[0] is FOUND
    assert flights.get(TARGET.key) is successor
    flights.invalidate()
    assert successor.outdated
    assert flights.get(TARGET.key) is None


async def test_replaced_flights_are_outdated_by_changes(runner: asyncio.Runner) -> None:
    """While they are under way: nobody joins them any more, but their results would be kept."""
    flights = Flights()
    (first, waiting), (second, others) = [await joined(flights, 1) for _ in range(2)]
    assert flights.get(TARGET.key) is second
    assert {*flights.invalidate(["shop.product"])} == {first, second}
    assert first.outdated
    for flight, waits in (first, waiting), (second, others):
        assert await flights.lead(flight, succeed) is await waits[0]
    ended, successor = flights.begin(TARGET), flights.begin(TARGET)
    await flights.lead(ended, succeed)
    assert flights.invalidate() == [successor]
