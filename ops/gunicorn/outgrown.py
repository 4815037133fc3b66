"""Replaces a worker that has more memory than WORKER_MEMORY_LIMIT, before the kernel kills some other worker.

gunicorn's max_requests would count requests, and would end a worker before another is there. Here, as in a reload by
SIGHUP, the next worker is forked before the worker that it replaces stops:

| process | does |
| --- | --- |
| a worker over its limit | takes the turn, which only one worker can have; marks itself; sends its arbiter SIGTTIN |
| the arbiter | starts one more worker on SIGTTIN. `make_room` makes the marked worker the first of its surplus |
| the arbiter | stops its surplus with SIGTERM, as it always does |
| the worker | drains and ends, which frees the turn |
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
# Seconds that a worker serves at least. If even a new worker exceeds the limit, each lives this long.
SERVES_SECONDS = 60.0
MARKED, NOTED = 1, 2  # values of a mark: set by the worker; by the arbiter

RESIDENT = metrics.gauge(
    "worker_resident_memory_bytes", "Memory of the largest worker, with what all share.", over="max"
).labels()

_turn: IO[bytes] | None = None


def prepare(worker: Any) -> None:
    """In the arbiter, before it forks a worker: make the mark that both see, and the file for the turn's lock."""
    global _turn  # noqa: PLW0603  one a process, inherited by its workers
    _turn = _turn or tempfile.TemporaryFile(dir=tmpfs.directory())  # noqa: SIM115  until the process ends
    worker.outgrown = mmap(-1, 1)


def make_room(server: Any) -> None:
    """In the arbiter, before it forks a worker: have the new worker replace a marked worker, not come in addition.

    gunicorn stops its oldest workers while it has more than `num_workers`, so the marked worker becomes the oldest.
    """
    for worker in server.WORKERS.values():
        if worker.outgrown[0] == MARKED:
            worker.outgrown[0] = NOTED
            worker.age = 0
            server.num_workers -= 1


async def watch(limit: int, mark: MutableSequence[int] | mmap, arbiter: int) -> None:
    """In a worker: ask the arbiter to replace it once it has more than `limit` bytes; 0 means no limit.

    `mark` is the byte that it shares with the arbiter, and `arbiter` the id of the arbiter's process.
    """
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
    """Take the turn, and return True, unless another worker has it. The kernel frees it when the process ends."""
    if not _turn:
        return False
    try:
        fcntl.lockf(_turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
