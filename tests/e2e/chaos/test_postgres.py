"""Postgres is restarted, away, frozen, cut off, slow, full or read-only, and the service goes on as far as it can."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest
from django.conf import settings

from tests.chaos import LONG, Figures
from tests.e2e.cache.client import Answer, connections
from tests.e2e.cache.proxy import CUT, IGNORING, SWALLOW
from tests.e2e.chaos.conftest import KEPT, Shop, busy, slowest, traffic, unknown_page, until_normal
from tests.ops.telemetry.conftest import eventually
from tests.service import PATIENCE, serve

pytestmark = [pytest.mark.lean, pytest.mark.xdist_group("chaos")]

DOWN_SECONDS = 130.0 if LONG else 1.5
FROZEN_SECONDS = 30.0 if LONG else 1.5
CUT_SECONDS = 5.0 if LONG else 0.5
FULL = "max_connections used up by others; role read-only"


@pytest.mark.chaos("Postgres immediate restart under load")
def test_an_immediate_restart(shop: Shop, figures: Figures) -> None:
    """No 500, cached reads are 200, and all are 200 within 3 s of when it accepts connections."""
    asyncio.run(outage(shop, 0.0, figures))


@pytest.mark.chaos("Postgres down 130 s")
def test_down(shop: Shop, figures: Figures) -> None:
    """The same after any time, and from the second second on each 503 is there in under 10 ms."""
    down = asyncio.run(outage(shop, DOWN_SECONDS, figures))
    ordered = sorted(each.seconds for each in down)
    figures("p99 of the 503s", 1000 * ordered[99 * len(ordered) // 100], "ms", most=10)
    figures("slowest of the 503s", 1000 * ordered[-1], "ms")
    figures("503s", len(down))


async def outage(shop: Shop, seconds: float, figures: Figures) -> list[Answer]:
    """The refusals from the second second on."""
    async with traffic(shop) as made:
        await made.is_normal()
        began = time.monotonic()
        await asyncio.to_thread(shop.kill)
        await asyncio.sleep(seconds)
        started = time.monotonic()
        await asyncio.to_thread(shop.postgres.start)
        figures("all 200 after", await made.is_normal(time.monotonic()), "s", most=3)
    made.check()
    return [each for each in made.refused(began + 1.0) if each.ended < started]


def freeze(shop: Shop) -> float:
    shop.signal(signal.SIGSTOP)
    return FROZEN_SECONDS


def reset(shop: Shop) -> float:
    shop.way.turn(commands=CUT)
    return CUT_SECONDS


def half_open(shop: Shop) -> float:
    """The other side is gone without a word: what is sent is lost, and so is a new connection."""
    shop.way.turn(commands=SWALLOW, door=IGNORING)
    return CUT_SECONDS


def slow(shop: Shop) -> float:
    shop.way.turn(delay=0.2)
    return CUT_SECONDS


@pytest.mark.chaos("Postgres SIGSTOP 30 s; connections reset; half-open; +200 ms")
@pytest.mark.parametrize("fault", [freeze, reset, half_open, slow], ids=lambda fault: fault.__name__)
def test_silent_or_slow(shop: Shop, fault: Callable[[Shop], float], figures: Figures) -> None:
    """Answers within 1.5 s, /livez under 100 ms, no more threads than before, normal within 3 s."""

    async def scenario() -> None:
        async with traffic(shop) as made:
            await made.is_normal()
            threads = shop.threads()
            try:
                await asyncio.sleep(fault(shop))
                more = shop.threads() - threads
            finally:
                if fault is freeze:
                    shop.signal(signal.SIGCONT)
            await asyncio.to_thread(shop.way.clear)
            name = fault.__name__
            figures(f"{name}: normal after", await made.is_normal(time.monotonic()), "s", most=3)
        made.check()
        assert more <= 0
        figures(f"{name}: slowest", slowest(made.computed.answers), "ms", most=1500)
        figures("slowest /livez", slowest(made.live.answers), "ms", most=100)

    asyncio.run(scenario())


@pytest.mark.chaos(FULL)
def test_no_connection_is_left(running: Shop, url: str, tmp_path: Path, figures: Figures) -> None:
    """Others have all connections: 503 `database_unavailable` at once, /livez is 200; back within 3 s."""
    running.mend()
    with ExitStack() as others:
        with suppress(psycopg.OperationalError):  # too many clients
            while True:
                others.enter_context(running.connect())
        with serve({"DATABASE_URL": url}, tmp_path) as service:
            for _ in range(3):
                answer = service.client.get(unknown_page())
                assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
                assert answer.headers["retry-after"] == "1"
            assert service.client.get("/livez").status_code == 200
            assert service.client.get("/api/products?limit=0").status_code == 422
            others.close()
            began = time.monotonic()
            eventually(lambda: service.client.get(unknown_page()).status_code == 200)
            figures("back after", time.monotonic() - began, "s", most=3)


@pytest.fixture
def read_only(shop: Shop) -> Iterator[Callable[[], None]]:
    """All sessions are so from now on; calling it ends that."""

    def turn(value: str) -> None:
        with shop.connect() as session:
            session.execute("SET default_transaction_read_only = off")
            session.execute(f"ALTER DATABASE postgres SET default_transaction_read_only = {value}")
        shop.end_sessions()
        asyncio.run(until_normal(shop))  # no worker has a session of before

    turn("on")
    yield lambda: turn("off")
    turn("off")


@pytest.mark.chaos(FULL)
def test_no_writes_are_taken(shop: Shop, read_only: Callable[[], None], figures: Figures) -> None:
    """A write is 503 `database_read_only` while Postgres takes none, and reads go on; back within 3 s."""
    client, voucher = shop.service.client, {"code": "chaos", "percent": 5, "category": "garden"}
    for headers in ({}, {"Idempotency-Key": "chaos"}):
        answer = client.post("/api/vouchers", json=voucher, headers=headers)
        while answer.json().get("code") == "write_outcome_unknown":  # on a session that has just ended
            answer = client.post("/api/vouchers", json=voucher, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_read_only"), answer.text
        fields = answer.headers
        assert (fields["retry-after"], fields["cache-control"]) == ("1", "no-store")
    assert client.get(unknown_page()).status_code == 200
    began = time.monotonic()
    read_only()
    eventually(lambda: client.post("/api/vouchers", json=voucher).status_code == 201)
    figures("back after", time.monotonic() - began, "s", most=3)
    with shop.connect() as session:
        session.execute("DELETE FROM shop_voucher WHERE code = 'chaos'")


@pytest.mark.chaos("lock on the table, 10 x pool requests")
def test_a_lock_on_the_table(shop: Shop, figures: Figures) -> None:
    """Each is refused by the deadline, a cached page is 200 meanwhile, and all of the pool is idle after."""
    number = 10 * settings.NATIVE_POOL.max_size * len(shop.workers())

    async def ask() -> list[Answer]:
        async with connections([shop.service.address] * number) as many:
            return await asyncio.gather(*(each.get(unknown_page()) for each in many))

    with shop.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE shop_product IN ACCESS EXCLUSIVE MODE")
        answers = asyncio.run(ask())
        assert {each.status for each in answers} == {503}
        assert all(each.fields[b"retry-after"] == b"1" for each in answers)
        figures("slowest refusal", slowest(answers), "ms", most=1500)
        assert shop.service.client.get(KEPT).status_code == 200
    began = time.monotonic()
    eventually(lambda: busy(shop.postgres) == 0, PATIENCE)
    figures("idle after the lock", time.monotonic() - began, "s", most=2)
    assert shop.service.client.get(unknown_page()).status_code == 200
