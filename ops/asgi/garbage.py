"""Keeps the cyclic garbage collector out of the latency budget: docs/decisions/0007-lean-handler.md has figures."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# New objects after which the youngest generation is collected; the default is 700 in Python 3.11 and 2,000 in 3.13.
# The longest pause and the sum of pauses in 4 s, at 500 req/s of the sync ORM, which leaves 55 objects in cycles a
# request: 0.24 and 23 ms for 700, 0.62 and 9.5 ms for 2,000, 2.8 and 10 ms for 10,000, 19 and 19 ms for 50,000.
YOUNGEST_OBJECTS = 2000


@asynccontextmanager
async def settle_heap() -> AsyncIterator[None]:
    """Exempt all objects that exist now from collection. Enter this once the worker is warm.

    Modules, routes and compiled queries live as long as the worker. A full collection took 29 ms with them, and takes
    1 ms without them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST_OBJECTS, *gc.get_threshold()[1:])
    yield
