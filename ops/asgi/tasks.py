"""The end of tasks that run beside the requests."""

import asyncio
from typing import Any

AGAIN = 0.2  # seconds until a task that goes on is told again
PATIENCE = 1.0  # seconds until it is left to the end of the loop


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks, and return once they have ended.

    A cancellation can get lost: asyncio.wait_for swallows it before Python 3.12 if its work is done in the same turn,
    and an error while something is closed takes its place.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE
    left = {task for task in tasks if not task.done()}
    while left and loop.time() < give_up:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN)
