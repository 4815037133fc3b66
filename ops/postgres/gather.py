"""Several queries of one request at once, each on a connection of the pool.

    product, total = await gather(get_product(id=7), TOTAL())

For queries that do not need each other's results. A worker has few connections, so a request takes some of them only,
`limit` at once; the others of its queries wait. The stopwatch counts the time in which any of them runs, once.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ops.postgres.pool import current, pools
from ops.tasks import run_together

Result = TypeVar("Result")


async def gather(*queries: Coroutine[Any, Any, Result], limit: int = 2) -> list[Result]:
    """Their results, in the order of the queries.

    If one fails, the others are cancelled, and its error is raised once they have ended. In Postgres, a statement
    that is under way runs to its end all the same, and keeps its connection so long, statement_timeout at most.

    In a transaction, and where no native pool is open, there is one connection: they run one after another.
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
            query.close()  # one that was not begun would be reported as forgotten
