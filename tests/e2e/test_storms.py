"""Redis away, Postgres away, an endpoint that is broken, a worker that is killed: what log and metrics say."""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from ops.telemetry.logs import SAME_SECONDS
from tests.e2e.cache.client import Load, load, tell
from tests.e2e.cache.proxy import REFUSING, Way, network
from tests.e2e.cache.valkey import private_valkey
from tests.loops import until
from tests.ops.telemetry.conftest import Instrumented, Start, eventually, start

__all__ = ["start"]

pytestmark = pytest.mark.lean

PRODUCTS = [f"/api/products/{number}" for number in range(1, 500)]
PATHS = [path for product in PRODUCTS for path in (product, "/api/products?limit=5", "/fail")]
MANY = 200

# At rest. The pool may keep fewer connections than it has had.
GAUGES = {
    "gunicorn_workers": 2,
    "http_requests_in_flight": 0,
    "admission_active": 0,
    "redis_breaker_open": 0,
    "page_cache_subscribed": 1,
    'postgres_pool_waiting{pool="native"}': 0,
    'postgres_pool_connections{pool="native",state="busy"}': 0,
    'postgres_pool_max{pool="native"}': 14,
}


@pytest.fixture
def ways(django_db_setup: None) -> Iterator[tuple[Way, Way]]:
    """To Postgres and to a Redis of its own."""
    server = settings.DATABASES["default"]
    postgres = Path(server["HOST"]) / f".s.PGSQL.{server['PORT'] or 5432}"
    with private_valkey() as valkey, network() as links:
        valkey.start()
        yield links.way(postgres), links.way(valkey.socket)


def kind(line: dict[str, Any]) -> tuple[Any, ...]:
    """The worker, and what the line tells of."""
    said = (line["route"], line["status"], line.get("code")) if "route" in line else ()
    return line["pid"], line["logger"], line["event"].split(":")[0], *said


async def storm(running: Instrumented, postgres: Way, redis: Way) -> Load:
    def answers(status: int) -> int:
        return sum(answer.status == status for answer in answered.answers)

    def logged(text: str) -> int:
        return running.service.log.read_text().count(text)

    async with load([running.service.address] * 16, PATHS, 0.002) as answered:
        await until(lambda: answers(500) > MANY)
        redis.turn(door=REFUSING)
        await until(lambda: logged("Redis is left alone"))
        redis.clear()
        await until(lambda: logged("Redis answers again") == logged("Redis is left alone"))
        postgres.turn(door=REFUSING)
        await until(lambda: answers(503) > MANY)
        postgres.clear()
        await until(lambda: logged("the database is back") == logged("the database is away"))
        killed = running.workers[0]
        os.kill(killed, signal.SIGKILL)
        await until(lambda: killed not in running.workers and len(running.workers) == 2)
        before = answers(200)
        await until(lambda: answers(200) > before + MANY)
    return answered


def test_a_storm_is_a_line_and_a_count_and_leaves_no_gauge_wrong(start: Start, ways: tuple[Way, Way]) -> None:
    postgres, redis = ways
    server, name = settings.DATABASES["default"], connection.settings_dict["NAME"]
    address = f"{server['USER']}:{server['PASSWORD']}@127.0.0.1:{postgres.port}/{name}"
    running = start(
        2,
        DATABASE_URL=f"postgresql://{address}?sslmode=disable&gssencmode=disable",
        REDIS_URL=f"redis://127.0.0.1:{redis.port}/0",
        PAGE_CACHE="on",
        DJANGO_SETTINGS_MODULE="tests.e2e.worker_settings",
    )
    began = time.monotonic()
    answered = asyncio.run(storm(running, postgres, redis))
    assert len(answered.errors) <= 16  # the connections to the worker that was killed

    for sample, value in GAUGES.items():
        eventually(lambda sample=sample, value=value: running.scrapes(sample, value))  # type: ignore[misc]
    assert not {name: value for name, value in running.scrape().items() if value < 0}

    logged = [json.loads(line) for line in running.service.log.read_text().splitlines()]
    most = 1 + (time.monotonic() - began) / SAME_SECONDS
    storms = Counter(kind(line) for line in logged if line["logger"] in STORMY)
    assert storms
    assert max(storms.values()) <= most, storms.most_common(3)
    failed = sum(answer.status >= 500 for answer in answered.answers)
    tell(f"{failed} failed answers of {len(answered.answers)}: {len(logged)} lines")


STORMY = {"ops.request", "django.request", "psycopg.pool"}
