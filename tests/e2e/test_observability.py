"""Every query of every panel, recording rule and alert, asked of a real Prometheus that watches what is real.

A panel may be empty only if its description says when. An alert's comparisons are asked for their truth
(PromQL's `bool`), so that it has an answer whether it fires or not.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from django.core.cache import cache
from django.db import connection

from ops.monitoring.grafana.boards import cache as cache_board
from ops.monitoring.grafana.boards import latency_budget, postgres, redis, service, workers
from ops.monitoring.grafana.dashboard import Dashboard
from tests.ops.monitoring.prometheus.rules import ALERTS, RULES
from tests.service import PATIENCE, ROOT, serve
from tests.shop.models import Product

from .prometheus import free_port, program, prometheus, wait_until_answered

SERVICE = (service.BOARD, latency_budget.BOARD, cache_board.BOARD, workers.BOARD)
EXPORTERS = (postgres.BOARD, redis.BOARD)
OF_EXPORTERS = {"PostgresDown", "PostgresConnectionsNearMax"}
OF_UPSTREAMS = {"UpstreamDown"}  # which the shop does not call
VARIABLES = {"$__rate_interval": "10s", "$route": ".*"}
KINDS = (
    "/api/products",
    "/api/products?sort=-low_price&limit=10",
    "/api/products?fields=id,category&layout=columns",
    "/api/products/1",
    "/api/products/0",  # 404
    "/api/products?colour=red",  # 422
    "/api/categories",
    "/api/docs",
    "/api/openapi.json",
    "/nowhere",
    "/livez",
    "/readyz",
    "/healthz",
)


def panels(*boards: Dashboard, empty: bool = False) -> dict[str, str]:
    """The queries by their panels: of those that need data, or of those that may be empty."""
    return {
        f"{board.title} / {panel['title']} / {target['refId']}": filled(target["expr"])
        for board in boards
        for row in board.rows.values()
        for panel in row
        if ("Empty when" in panel["description"]) == empty
        for target in panel["targets"]
    }


def filled(query: str) -> str:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


METRICS = {
    re.sub("_(bucket|count|sum)$", "", name)
    for query in panels(*SERVICE, empty=True).values()
    for name in re.findall(r"\w+(?=\{|\[)", query)
}
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("quiet"),
    pytest.mark.skipif(
        not shutil.which("prometheus"),
        reason="prometheus is not installed (Debian: apt-get install prometheus)",
    ),
]
needs_exporters = pytest.mark.skipif(
    not shutil.which("prometheus-postgres-exporter") or not shutil.which("prometheus-redis-exporter"),
    reason="exporters are not installed (Debian: prometheus-postgres-exporter, prometheus-redis-exporter)",
)


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Httpx logs each request; a failure would be shown with thousands of them."""
    caplog.set_level(logging.WARNING, "httpx")


@pytest.fixture
def database(django_db_setup: None) -> str:
    """The URL of the database of tests."""
    name = str(connection.settings_dict["NAME"])
    assert name.startswith("test_")
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


def test_the_service_answers_every_query(database: str, tmp_path: Path) -> None:
    port = free_port()
    variables = {"DATABASE_URL": database, "METRICS_PORT": str(port), "PAGE_CACHE": "on"}
    variables["CACHE_PREFIX"] = tmp_path.name
    with (
        serve(variables, tmp_path, workers=2) as running,
        prometheus(tmp_path, api=f"127.0.0.1:{port}") as watching,
    ):
        lose_a_worker(running.process.pid)
        exhaust_the_pool(running.client, database)
        # The pages of KINDS are soon cached; one that is not has a serialisation stage.
        computed = (f"/api/products?limit={limit}" for limit in cycle(range(1, 1001)))
        with repeated(lambda: [ask(running.client, target) for target in (*KINDS, next(computed))]):
            watching.answers(
                panels(*SERVICE) | recorded() | alerts(set(ALERTS) - OF_EXPORTERS - OF_UPSTREAMS)
            )
            watching.understands(panels(*SERVICE, empty=True) | alerts(OF_UPSTREAMS))


@needs_exporters
def test_the_exporters_answer_every_query(database: str, tmp_path: Path) -> None:
    addresses = {"postgres": f"127.0.0.1:{free_port()}", "redis": f"127.0.0.1:{free_port()}"}
    with (
        exporters(database, addresses, tmp_path),
        prometheus(tmp_path, **addresses) as watching,
        repeated(use_the_cache),
    ):
        watching.answers(panels(*EXPORTERS) | alerts(OF_EXPORTERS))
        watching.understands(panels(*EXPORTERS, empty=True))


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_that_may_have_no_series_yet_is_one_of_the_service(name: str) -> None:
    """A misspelt one would never have any."""
    paths = (path for room in ("api", "ops") for path in (ROOT / room).rglob("*.py"))
    sources = [path.read_text() for path in paths if "grafana" not in path.parts]
    assert any(f'"{name}"' in source for source in sources)


def ask(client: httpx.Client, target: str) -> tuple[httpx.Response, httpx.Response]:
    """Through the page cache and past it."""
    return client.get(target), client.get(target, headers={"Authorization": "Bearer of nothing"})


def recorded() -> dict[str, str]:
    """A query for each recording rule: its own series."""
    series = [rule["record"] + matchers(rule.get("labels", {})) for rule in RULES if "record" in rule]
    return {each: each for each in series}


def matchers(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def alerts(names: set[str]) -> dict[str, str]:
    return {name: re.sub(r" (>|<|==) ", r" \1 bool ", ALERTS[name]["expr"]) for name in names}


def lose_a_worker(arbiter: int) -> None:
    """As the kernel does it when memory is short."""
    deadline = time.monotonic() + PATIENCE
    while True:
        children = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()
        for child in children:
            if b"-m\0gunicorn\0" in Path(f"/proc/{child}/cmdline").read_bytes():  # not the exporter's shell
                os.kill(int(child), signal.SIGKILL)
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exhaust_the_pool(client: httpx.Client, database: str) -> None:
    """More requests than it has connections and places to wait, while Postgres answers none of them."""
    targets = [f"/api/products?low_price_min={price}" for price in range(150)]  # none of them is cached

    async def crowd() -> set[int]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=client.base_url, timeout=PATIENCE, limits=limits) as clients:
            return {answer.status_code for answer in await asyncio.gather(*map(clients.get, targets))}

    with psycopg.connect(database) as blocker:
        blocker.execute(f"LOCK TABLE {Product._meta.db_table} IN ACCESS EXCLUSIVE MODE")
        statuses = asyncio.run(crowd())
        blocker.rollback()
    assert statuses == {503}


def use_the_cache() -> None:
    """Writes, hits and misses."""
    cache.set("observed", 1)
    cache.get_many(["observed", "never set"])


@contextmanager
def repeated(act: Callable[[], object]) -> Iterator[None]:
    """Do it again and again until the block ends."""
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(0.05):  # seconds: enough for a few hundred requests, and little CPU
            act()

    with ThreadPoolExecutor(1) as thread:
        acting = thread.submit(repeat)
        try:
            yield
        finally:
            done.set()
        acting.result()


@contextmanager
def exporters(database: str, addresses: Mapping[str, str], directory: Path) -> Iterator[None]:
    """Both, on the servers of the tests."""
    commands = {
        "postgres": ["prometheus-postgres-exporter", f"--web.listen-address={addresses['postgres']}"],
        "redis": [
            "prometheus-redis-exporter",
            f"-web.listen-address={addresses['redis']}",
            f"-redis.addr={os.environ['REDIS_URL'].partition('?')[0]}",
        ],
    }
    variables = {**os.environ, "DATA_SOURCE_NAME": database, "PGSSLMODE": "disable"}
    logs = {name: directory / f"{name}.log" for name in commands}
    with (
        program(commands["postgres"], logs["postgres"], variables),
        program(commands["redis"], logs["redis"], variables),
    ):
        for name, address in addresses.items():
            wait_until_answered(f"http://{address}/metrics", logs[name])
        yield
