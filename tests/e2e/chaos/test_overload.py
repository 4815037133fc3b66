"""More requests than one worker can answer, at a rate that does not fall with its answers."""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from ops.tools.embedded.postgres import Postgres
from tests.chaos import LONG, Figures
from tests.e2e.chaos.open_loop import Crowd, crowd
from tests.service import PATIENCE, Service, serve

pytestmark = [pytest.mark.lean, pytest.mark.xdist_group("chaos")]

# Dear enough for the generator to make 20 times what the worker can answer, on the same cores.
PAGE = "/api/orders?limit=200&fields=id,lines"
POINTS = (1, 2, 5, 10, 20) if LONG else (5,)  # times the capacity
SECONDS = 2 if LONG else 1
ROUNDS = 3 if LONG else 1  # of all points, since the machine is not as fast all the time
FLOOD = 2000  # requests a second, of which it answers as many as it can
MOST_MS = 50  # for an answer that is not refused
BOUNDS: dict[str, tuple[str, dict[str, float]]] = {
    "capacity": ("/s", {}),
    "goodput": ("% of peak", {"least": 90}),
    "p99 accepted": ("ms", {"most": MOST_MS}),
    "p99 refused": ("ms", {"most": 10}),
}
NORMAL = 20  # answers in a row


@pytest.fixture
def orders(postgres: Postgres) -> Iterator[None]:
    """400 of them, with five lines each."""
    with psycopg.connect(postgres.url, autocommit=True) as session:
        session.execute(
            "INSERT INTO shop_order (number, placed, paid_amount, paid_currency)"
            " SELECT 'chaos-' || i, now(), i, 'EUR' FROM generate_series(1, 400) AS i"
        )
        session.execute(
            "INSERT INTO shop_orderline (order_id, position, product_id, quantity, note)"
            " SELECT shop_order.id, i, i, i, '' FROM shop_order, generate_series(1, 5) AS i"
            " WHERE number LIKE 'chaos-%'"
        )
        yield
        session.execute(
            "DELETE FROM shop_orderline USING shop_order"
            " WHERE order_id = shop_order.id AND number LIKE 'chaos-%'"
        )
        session.execute("DELETE FROM shop_order WHERE number LIKE 'chaos-%'")


@pytest.fixture
def service(orders: None, postgres: Postgres, tmp_path: Path) -> Iterator[Service]:
    """One worker without a page cache."""
    with serve({"DATABASE_URL": postgres.url, "ADMISSION_LIMIT": "0"}, tmp_path) as running:
        running.client.get(PAGE)
        yield running


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
    address = str(service.client.base_url)
    measured: dict[str, list[float]] = defaultdict(list)  # in each round
    for _ in range(ROUNDS):
        able = len(crowd(address, PAGE, FLOOD, SECONDS).since_due(200)) / SECONDS
        measured["capacity"].append(able)
        found: dict[int, Crowd] = {}
        for times in POINTS:
            found[times] = crowd(address, PAGE, int(able * times), SECONDS)
            figures("normal after", until_normal(service, MOST_MS / 1000, found[times].ended), "s", most=5)
            figures("requests without an answer", found[times].errors, most=0)
            assert {each.status for each in found[times].answers} <= {200, 503}
            assert service.client.get("/readyz").status_code == 200
        assert any(each.since_due(503) for each in found.values())
        assert all(each.since_due(200) for each in found.values())
        peak = max(len(each.since_due(200)) for each in found.values())
        for times, each in found.items():
            good, refused = each.since_due(200), each.since_sent(503)
            measured[f"{times} x: goodput"].append(100 * len(good) / peak)
            measured[f"{times} x: p99 accepted"].append(good[99 * len(good) // 100])
            if refused:
                measured[f"{times} x: p99 refused"].append(refused[99 * len(refused) // 100])
    for name, values in measured.items():
        unit, bounds = BOUNDS[name.rpartition(": ")[2]]
        figures(name, statistics.median(values), unit, **bounds)
