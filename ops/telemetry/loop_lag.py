"""Measures the lag of the event loop, which a request waits for before it is timed, and logs the code that blocks it.

A thread looks whether the loop still turns. Unlike the loop, it can see the stack of the code that blocks the loop
while it does. C code that holds the GIL blocks the thread, too; the thread then runs as soon as that code is done,
and still finds the caller of the code on the stack.
"""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from traceback import StackSummary, walk_stack
from types import FrameType
from typing import Any

import structlog

from ops.telemetry import request_stats
from ops.telemetry.metrics import OTHER, metrics
from ops.telemetry.stopwatch import current

logger = structlog.get_logger("ops.loop")

EVERY_SECONDS = 0.1  # seconds. uvloop's timers are exact to a millisecond, and so is this measurement
BLOCKED_SECONDS = 1.0  # seconds without a turn: a hundred times the budget of a request
LOOK_SECONDS = 0.25  # seconds between two looks of the thread
SAME_SECONDS = (
    60.0  # seconds between two lines of the same route; the second has the count of the blocks between them
)
STACK_FRAMES = 20  # innermost: those of the view, of the code that it called, and of the layers next to it
IDLE_FILES = ("asyncio/runners.py", "asyncio/base_events.py", "selectors.py")  # where a loop waits for events

LAG = metrics.histogram("event_loop_lag_seconds", "Lateness of a timer of the event loop.").labels()
BLOCKS = metrics.counter(
    "event_loop_blocks_total", "Times that the event loop did not turn for a second or more."
).labels()


@asynccontextmanager
async def watch_loop() -> AsyncIterator[None]:
    watchdog = Watchdog()
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


class Watchdog:
    """Watches the event loop that runs when it is made."""

    def __init__(self) -> None:
        self._loop, self._watched = asyncio.get_running_loop(), threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="loop-watchdog", daemon=True)
        self._stopped = threading.Event()
        self._turned = perf_counter()  # when the loop last turned
        # By method and route: when their last line was, and how many blocks there were since then.
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def start(self) -> None:
        self._timer = self._loop.call_later(EVERY_SECONDS, self._turn)
        self._thread.start()

    def stop(self) -> None:
        self._timer.cancel()
        self._stopped.set()

    def _turn(self) -> None:
        """Measure the lag. The timer itself calls this: a task would run after other work that is due."""
        before, self._turned = self._turned, perf_counter()
        lag = max(0.0, self._turned - before - EVERY_SECONDS)
        LAG.observe(lag)
        if lag >= BLOCKED_SECONDS:
            BLOCKS.value += 1
        self._timer = self._loop.call_later(EVERY_SECONDS, self._turn)

    # --- In its thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        reported = 0.0  # the turn after which the last reported block began
        while not self._stopped.wait(LOOK_SECONDS):
            turned, now = self._turned, perf_counter()
            if turned != reported and now - turned >= BLOCKED_SECONDS:
                frame = sys._current_frames().get(self._watched)  # noqa: SLF001  documented, in spite of its name
                # A loop that waits for events is not blocked: the whole process was stopped, and runs again.
                if frame and not frame.f_code.co_filename.endswith(IDLE_FILES):
                    reported = turned
                    self._report(frame, now - turned, now)

    def _report(self, frame: FrameType, seconds: float, now: float) -> None:
        """Log the stack, with the request of the task that runs, if there is one."""
        task = asyncio.current_task(self._loop)
        context = getattr(task, "get_context", None)  # since Python 3.12
        watch = context().get(current) if context else None
        request: dict[str, Any] = {}
        if watch is not None:
            request["method"] = watch.method if watch.method in request_stats.METHODS else OTHER
            request["route"] = request_stats.route(watch.route).template
            request["request_id"] = watch.request_id.decode()
        kind = request.get("method", ""), request.get("route", "")
        since, blocks = self._seen.get(kind, (-SAME_SECONDS, 0))
        if now - since < SAME_SECONDS:
            self._seen[kind] = since, blocks + 1
            return
        self._seen[kind] = now, 0
        stack = StackSummary.extract(walk_stack(frame), limit=STACK_FRAMES)
        stack.reverse()
        logger.error(
            "The event loop is blocked",
            seconds=round(seconds, 3),
            blocks=blocks + 1,
            **request,
            stack="".join(stack.format()),
        )
