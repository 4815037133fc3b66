"""Tasks end when they are told to, also those that do not listen at first."""

import asyncio
from contextlib import suppress

import pytest

from ops import tasks
from ops.tasks import end


async def deaf(times: int) -> None:
    """Swallows so many cancellations."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(tasks, "GIVE_UP_SECONDS", 0.2)


def test_all_end() -> None:
    async def run() -> None:
        started = [asyncio.create_task(deaf(times)) for times in (0, 1, 3)]
        started.append(asyncio.create_task(asyncio.sleep(0)))
        await asyncio.sleep(0)
        await end(*started)
        assert all(task.done() for task in started)
        assert started[2].cancelled()
        await end(*started)
        await end()

    asyncio.run(run())


def test_one_that_has_not_begun() -> None:
    async def run() -> None:
        await end(asyncio.create_task(deaf(0)))

    asyncio.run(run())


def test_what_does_not_end_is_left() -> None:
    async def run() -> None:
        stubborn = asyncio.create_task(deaf(10_000))
        await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await end(stubborn)
        assert not stubborn.done()
        for _ in range(10_001):
            stubborn.cancel()
            await asyncio.sleep(0)

    asyncio.run(run())
