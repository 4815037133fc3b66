"""Keeps the cyclic garbage collector out of the latency budget: docs/decisions/0007-lean-handler.md has figures."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# Objects that outlive their birth until the youngest generation is collected; Python's default is 700. Longest
# pause and total of 4 s at 500 req/s of the sync ORM, which leaves 55 objects in cycles a request: 0.24 and 23 ms
# with 700, 0.62 and 9.5 ms with 2,000, 2.8 and 10 ms with 10,000, 19 and 19 ms with 50,000.
YOUNGEST_OBJECTS = 2000


@asynccontextmanager
async def settle_heap() -> AsyncIterator[None]:
    """Exempt the objects that exist from collection; enter it last, once the worker is warm.

    Modules, routes and compiled queries live as long as the worker. Looking at them took a full collection 29 ms;
    without them it takes 1 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNGEST_OBJECTS, *gc.get_threshold()[1:])
    yield
