"""What the metrics tell of a worker's memory."""

import pytest
import uvloop

from api.cache import changes, figures
from tests.api.cache.harness import target, worker

pytestmark = [
    pytest.mark.usefixtures("runner", "prefix"),
    pytest.mark.parametrize("runner", [uvloop.new_event_loop], indirect=True, ids=["uvloop"]),
]


async def test_an_empty_memory_is_told_as_one() -> None:
    async with worker() as one, changes.heard(one.finder) as announcer:
        sample = figures.sampler(one.finder, announcer)
        await one.get(target())
        sample()
        assert (figures.ENTRIES.value, figures.BYTES.value) == (1, one.memory.bytes)
        one.finder.clear()
        sample()
        assert (figures.ENTRIES.value, figures.BYTES.value) == (0, 0)
