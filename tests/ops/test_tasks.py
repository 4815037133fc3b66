"""Work side by side."""

import asyncio

import pytest

from ops.tasks import together


async def give(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def fail() -> str:
    await asyncio.sleep(0)
    raise LookupError


async def test_both_results(runner: asyncio.Runner) -> None:
    assert await together(give("a"), give("b")) == ("a", "b")


async def test_an_error_is_raised_as_it_is_and_ends_the_other(runner: asyncio.Runner) -> None:
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(LookupError):
        await together(wait(), fail())
    assert ended.is_set()
    assert len(asyncio.all_tasks()) == 1


async def test_a_caller_that_leaves_ends_both(runner: asyncio.Runner) -> None:
    begun = [asyncio.Event(), asyncio.Event()]

    async def wait(event: asyncio.Event) -> None:
        event.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(together(wait(begun[0]), wait(begun[1])))
    for event in begun:
        await event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(asyncio.all_tasks()) == 1
