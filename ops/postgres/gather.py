"""Runs several queries of one request at once, on connections of the pool.

    product, total = await gather(get_product(id=7), TOTAL())

It is for queries that do not need each other's results. A worker has few connections, so only `limit` queries of a
request run at once, and its others wait. The stopwatch counts time in which several queries run only once.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ops.postgres.pool import current, pools
from ops.tasks import run_together

Result = TypeVar("Result")


async def gather(*queries: Coroutine[Any, Any, Result], limit: int = 2) -> list[Result]:
    """Run the queries, and return their results in the same order.

    If a query fails, the others are cancelled, and its error is raised once they have ended. In Postgres, a statement
    under way still runs to its end, by statement_timeout at the latest, and keeps its connection until then.

    In a transaction, or where no native pool is open, there is one connection: the queries run one after another.
    """
    places = asyncio.Semaphore(1 if current.get() or asyncio.get_running_loop() not in pools else limit)

    async def run(query: Coroutine[Any, Any, Result]) -> Result:
        await places.acquire()
        result = await query
        places.release()  # not after an error, which ends them all
        return result

    try:
        return await run_together(*map(run, queries))
    finally:
        for query in queries:
            query.close()  # Python would warn of a coroutine that was never awaited
