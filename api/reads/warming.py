"""Compiles the queries of first pages, and has Postgres plan them, before a client would wait for it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.conf import settings

from api.reads.listing import LISTINGS

logger = logging.getLogger(__name__)

WARMING_SECONDS = 2.0  # at most, for all lists: a database that is slow or down holds up no start


@asynccontextmanager
async def warm_listings() -> AsyncIterator[None]:
    """For the lifespan of a worker, after its pool: the first page of each list, in each of its orders.

    It takes 5 of the 6.5 ms of CPU of a worker's first page, and 19 of 20 ms in Postgres, which reads its catalogues
    anew for each connection.
    """
    if not settings.INSTRUMENTED:  # the instruments of development show requests only
        try:
            async with asyncio.timeout(WARMING_SECONDS):
                for listing in LISTINGS:
                    await listing.warm()
        except Exception as error:  # noqa: BLE001  a request will meet it, and say it
            logger.debug("The listings were not warmed: %r", error)
    yield
