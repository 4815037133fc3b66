"""Replaces a worker that has more memory than WORKER_MEMORY_LIMIT, before the kernel kills one that has not.

gunicorn's max_requests would count requests, and a worker that it ends is gone before another is there. Here, as with
a reload by SIGHUP, the next worker is forked before the one that it replaces stops:

| process | does |
| --- | --- |
| a worker over its limit | takes the turn, which one worker at a time has; marks itself; sends its arbiter SIGTTIN |
| the arbiter | starts one more worker on SIGTTIN. `make_room` makes the marked one the first of its surplus |
| the arbiter | stops its surplus with SIGTERM, as it always does |
| the worker | drains, ends, and with it its turn |
"""

import asyncio
import fcntl
import logging
import os
import signal
import tempfile
from collections.abc import MutableSequence
from mmap import mmap
from typing import IO, Any

from ops.machine import memory, tmpfs
from ops.telemetry.metrics import metrics
from ops.telemetry.readiness import readiness

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # seconds between two looks, of 40 us each
# Seconds that a worker serves at least: a limit that each exceeds as it starts replaces one worker a minute.
SERVES_SECONDS = 60.0
MARKED, NOTED = 1, 2  # by the worker, by the arbiter

RESIDENT = metrics.gauge(
    "worker_resident_memory_bytes", "Memory of the largest worker, with what all share.", over="max"
).labels()

_turn: IO[bytes] | None = None


def prepare(worker: Any) -> None:
    """In the arbiter, before it forks a worker: the mark that both see, and the file whose lock is the turn."""
    global _turn  # noqa: PLW0603  one a process, inherited by its workers
    _turn = _turn or tempfile.TemporaryFile(dir=tmpfs.directory())  # noqa: SIM115  until the process ends
    worker.outgrown = mmap(-1, 1)


def make_room(server: Any) -> None:
    """In the arbiter, before it forks a worker: the new one is in place of a marked one, and not one more.

    gunicorn stops its oldest workers while it has more than `num_workers`.
    """
    for worker in server.WORKERS.values():
        if worker.outgrown[0] == MARKED:
            worker.outgrown[0] = NOTED
            worker.age = 0
            server.num_workers -= 1


async def watch(limit: int, mark: MutableSequence[int] | mmap, arbiter: int) -> None:
    """In a worker: ask the arbiter to replace it once it has more than `limit` bytes. 0: there is no limit."""
    loop = asyncio.get_running_loop()
    settled = loop.time() + SERVES_SECONDS
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        RESIDENT.value = resident = memory.resident()
        if not limit or resident <= limit or loop.time() < settled or readiness.draining:
            continue
        if os.getppid() == arbiter and _take_turn():
            logger.warning(
                "This worker is replaced: it has %d MiB of memory, WORKER_MEMORY_LIMIT is %d",
                *(resident >> 20, limit >> 20),
            )
            mark[0] = MARKED
            os.kill(arbiter, signal.SIGTTIN)
            limit = 0


def _take_turn() -> bool:
    """Whether no other worker has it. The kernel takes it back when the process ends, however it does."""
    if not _turn:
        return False
    try:
        fcntl.lockf(_turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
