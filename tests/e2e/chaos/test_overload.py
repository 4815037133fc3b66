"""More requests than one worker can answer, at a rate that does not fall with its answers."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from ops.tools.embedded.postgres import Postgres
from tests.chaos import LONG, Figures
from tests.e2e.cache.client import load
from tests.e2e.chaos.open_loop import Crowd, crowd
from tests.service import PATIENCE, Service, serve

pytestmark = [pytest.mark.lean, pytest.mark.xdist_group("chaos")]

PAGE = "/api/products?limit=1000"
POINTS = (1, 2, 5, 10, 20) if LONG else (5,)  # times the capacity
SECONDS = 4 if LONG else 1
NORMAL = 20  # answers in a row


@pytest.fixture
def service(postgres: Postgres, tmp_path: Path) -> Iterator[Service]:
    """One worker without a page cache."""
    with serve({"DATABASE_URL": postgres.url}, tmp_path) as running:
        running.client.get(PAGE)
        yield running


async def capacity(service: Service, seconds: float) -> tuple[float, float]:
    """Answers a second that 8 connections get, each of which waits for its answer; and their p99 in seconds."""
    async with load([service.address] * 8, [PAGE], 0.0) as made:
        await asyncio.sleep(seconds)
        answers = [*made.answers]
    return len(answers) / seconds, sorted(each.seconds for each in answers)[99 * len(answers) // 100]


def until_normal(service: Service, seconds: float, since: float) -> float:
    """From `since` until the first of so many answers in a row that are 200, each within `seconds`."""
    good_since = time.monotonic()
    row = 0
    while row < NORMAL:
        asked = time.monotonic()
        assert asked - since < PATIENCE
        status = 0
        with suppress(httpx.TransportError):
            status = service.client.get(PAGE).status_code
        if status == 200 and time.monotonic() - asked < seconds:
            row += 1
        else:
            row, good_since = 0, time.monotonic()
    return good_since - since


@pytest.mark.chaos("overload 1, 2, 5, 10, 20 x capacity")
def test_an_open_loop(service: Service, figures: Figures) -> None:
    """Goodput is 90 % of its peak at every point, what is accepted takes 50 ms, a refusal 10 ms; normal within 5 s.

    All else is exact: each request has an answer, which is 200 or 503.
    """
    able, usual = asyncio.run(capacity(service, SECONDS))
    found: dict[int, Crowd] = {}
    for times in POINTS:
        found[times] = crowd(str(service.client.base_url), PAGE, int(able * times), SECONDS)
        figures("normal after", until_normal(service, 2 * usual, found[times].ended), "s", most=5)
        assert {each.status for each in found[times].answers} <= {200, 503}
        assert service.client.get("/readyz").status_code == 200
    assert any(each.since_due(503) for each in found.values())
    assert all(each.since_due(200) for each in found.values())
    figures("capacity", able, "/s")
    peak = max(len(each.since_due(200)) for each in found.values())
    for times, each in found.items():
        good, refused = each.since_due(200), each.since_sent(503)
        figures(f"{times} x: goodput", 100 * len(good) / peak, "% of peak", least=90)
        figures(f"{times} x: p99 accepted", good[99 * len(good) // 100], "ms", most=50)
        if refused:
            figures(f"{times} x: p99 refused", refused[99 * len(refused) // 100], "ms", most=10)
        figures("requests without an answer", each.errors, most=0)
