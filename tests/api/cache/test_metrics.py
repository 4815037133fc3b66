"""The metrics of a worker's memory."""

import pytest
import uvloop

from api.cache import changes, metrics
from api.cache.layer import PageCache
from tests.api.cache.harness import Origin, target, worker

pytestmark = [
    pytest.mark.usefixtures("runner", "prefix"),
    pytest.mark.parametrize("runner", [uvloop.new_event_loop], indirect=True, ids=["uvloop"]),
]


async def test_the_last_counts_are_taken_at_the_end() -> None:
    """Those since the last sample, before the metrics are written for the last time."""
    cache = PageCache(Origin())
    async with cache.open_tiers():
        assert cache.lookup
        cache.lookup.memory.evictions["full"] = 7
    assert metrics.EVICTIONS.labels("full").value == 7


async def test_an_empty_memory_is_told_as_one() -> None:
    async with worker() as one, changes.open_publisher(one.lookup) as publisher:
        sample = metrics.sampler(one.lookup, publisher)
        await one.get(target())
        sample()
        assert (metrics.ENTRIES.value, metrics.BYTES.value) == (1, one.memory.bytes)
        one.lookup.clear()
        sample()
        assert (metrics.ENTRIES.value, metrics.BYTES.value) == (0, 0)
