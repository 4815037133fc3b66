"""How long the garbage collector stops a worker."""

import gc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter

from ops.telemetry.metrics import metrics

PAUSES = metrics.histogram("python_gc_pause_seconds", "Collections of the garbage collector.", "generation")


class Pauses:
    def __init__(self) -> None:
        self._generations = [PAUSES.labels(str(number)) for number in range(len(gc.get_count()))]
        self._began = 0.0

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self._generations[info["generation"]].observe(perf_counter() - self._began)


@asynccontextmanager
async def time_collections() -> AsyncIterator[None]:
    pauses = Pauses()
    gc.callbacks.append(pauses)
    try:
        yield
    finally:
        gc.callbacks.remove(pauses)
