"""Tasks that run beside the requests, or longer than they do: their end and their results."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

AGAIN_SECONDS = 0.2  # seconds until a task that still runs is cancelled again
GIVE_UP_SECONDS = 1.0  # seconds until `end` gives up: the task is left to the end of the loop

_finishing: set["asyncio.Task[Any]"] = set()  # a loop has only weak references to tasks


async def finish(work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`. It runs to its end even if the caller is cancelled: its client has left, say."""
    task = asyncio.create_task(work)
    _finishing.add(task)
    task.add_done_callback(_finishing.discard)
    return await asyncio.shield(task)


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, and return once they have ended, or after GIVE_UP_SECONDS.

    They are cancelled again and again, since a cancellation can get lost: asyncio.wait_for swallows it before Python
    3.12 if its work is done in the same turn, and an error while something is closed takes its place.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + GIVE_UP_SECONDS
    left = {task for task in tasks if not task.done()}
    while left and loop.time() < give_up:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_SECONDS)


async def run_together(*work: Coroutine[Any, Any, Result]) -> list[Result]:
    """Run pieces of work side by side, and return their results in order.

    The first error cancels the others, and is raised as it is, without an ExceptionGroup, which handlers do not know.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


First = TypeVar("First")
Second = TypeVar("Second")


async def together(
    first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]
) -> tuple[First, Second]:
    """The same as `run_together`, for two pieces of work with results of different types."""
    one, other = await run_together(first, second)
    return one, other  # type: ignore[return-value]
