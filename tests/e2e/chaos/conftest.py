"""A service on a Postgres of its own, which a test may stop, kill, freeze and cut off, and load on it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops.project import NAME
from ops.tools.embedded.paths import LOCAL
from ops.tools.embedded.postgres import DATABASE, USER, Postgres
from ops.tools.embedded.servers import Servers
from tests.e2e.cache.client import Answer, Load, load
from tests.e2e.cache.proxy import Way, network
from tests.service import PATIENCE, Service, serve
from tests.spare import Database

KEPT = "/api/products/stats"  # cached, and sent for a day after, if it cannot be computed
ENOUGH = 100  # answers in a row that are right: all is normal
HANDS = 8  # connections that ask for pages that nobody has asked for
_numbers = count(1)


def unknown_page(limit: int = 10) -> str:
    """Of products; no cache has it."""
    return f"/api/products?limit={limit}&sort=low_price&low_price_min={next(_numbers) / 100:.2f}"


@dataclass
class Shop:
    """The service, its Postgres and the way between them."""

    service: Service
    postgres: Postgres
    way: Way

    def workers(self) -> list[int]:
        return children(self.service.process.pid)

    def threads(self) -> int:
        return sum(len([*Path(f"/proc/{pid}/task").iterdir()]) for pid in self.workers())

    def connect(self) -> "psycopg.Connection[Any]":
        """A session beside the service's."""
        return psycopg.connect(self.postgres.url, autocommit=True)

    def kill(self) -> None:
        """What `pg_ctl stop -m immediate` does: its sessions end at once, and the next start is a recovery."""
        self.postgres.stop_signal = signal.SIGQUIT
        self.postgres.stop()

    def signal(self, number: signal.Signals) -> None:
        """Send it to each process of Postgres."""
        for pid in (self.postgres.pid, *children(self.postgres.pid)):
            os.kill(pid, number)

    def end_sessions(self) -> None:
        """The service's, which then opens others."""
        with self.connect() as session:
            session.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s",
                [NAME],
            )

    def mend(self) -> None:
        self.way.clear()
        self.postgres.start()


def busy(postgres: Postgres) -> int:
    """The services' sessions that are not idle."""
    with psycopg.connect(postgres.url, autocommit=True) as session:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state <> 'idle'", [NAME]
        ).fetchone()
    return int(row[0]) if row else 0


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    """With few connections, and a shop."""
    servers = Servers(LOCAL / f"test-{os.getpid()}-chaos", durable=False)
    servers.postgres.settings = servers.postgres.settings | {"max_connections": "50"}
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(
                "DATABASE_URL", raising=False
            )  # the other tests' server, in whose place this one starts
            stack.enter_context(servers)
        for command in (("migrate",), ("seed_shop", "--rows", "5000")):
            done = Database(DATABASE).manage(
                *command, "--verbosity=0", DATABASE_URL=servers.postgres.url, WEB_CONCURRENCY="2"
            )
            assert (done.returncode, done.stderr) == (0, "")
        yield servers.postgres


@pytest.fixture(scope="package")
def way(postgres: Postgres) -> Iterator[Way]:
    """From the service to Postgres, by TCP."""
    with network() as links:
        yield links.way(postgres.sockets / postgres.socket_name)


@pytest.fixture(scope="package")
def url(way: Way) -> str:
    return f"postgresql://{USER}@127.0.0.1:{way.port}/{DATABASE}?sslmode=disable&gssencmode=disable"


@pytest.fixture(scope="package")
def running(
    postgres: Postgres, way: Way, url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("chaos")
    own = {"DATABASE_URL": url, "PAGE_CACHE": "on", "CACHE_PREFIX": directory.parent.name}
    with serve(own, directory, workers=2) as service:
        yield Shop(service, postgres, way)


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    """All is well before the test, and after it."""
    running.mend()
    asyncio.run(until_normal(running))
    yield running
    running.mend()


async def until_normal(shop: Shop) -> None:
    """Until each worker answers, and has what is to be kept."""
    async with traffic(shop) as made:
        await made.is_normal()


class Traffic:
    """Requests for pages that have to be computed, for one that is cached, and for /livez."""

    def __init__(self, computed: Load, kept: Load, live: Load) -> None:
        self.computed, self.kept, self.live = computed, kept, live

    async def is_normal(self, since: float = 0.0) -> float:
        """Wait until the last ENOUGH answers of each kind are right; seconds from `since` until they were."""
        async with asyncio.timeout(PATIENCE):
            while not all(  # noqa: ASYNC110  the answers come in other tasks of this loop
                len(last := each.answers[-ENOUGH:]) == ENOUGH and {one.status for one in last} == {200}
                for each in (self.computed, self.kept, self.live)
            ):
                await asyncio.sleep(0.01)
        return max(0.0, max((each.ended for each in self.refused()), default=0.0) - since)

    def refused(self, since: float = 0.0) -> list[Answer]:
        """The answers of computed pages that are not 200, to requests from then on."""
        return [each for each in self.computed.answers if each.status != 200 and each.began >= since]

    def check(self) -> None:
        """Each request has had an answer: 200 where Postgres is not needed, else 200, or when to ask again."""
        for each in (self.computed, self.kept, self.live):
            assert not each.errors, each.errors[:3]
        assert {each.status for each in (*self.kept.answers, *self.live.answers)} == {200}
        for refused in self.refused():
            assert refused.status == 503, refused
            assert b'"code":"database_unavailable"' in refused.body or b'"code":"overloaded"' in refused.body
            assert (refused.fields[b"retry-after"], refused.fields[b"cache-control"]) == (b"1", b"no-store")


@asynccontextmanager
async def traffic(shop: Shop) -> AsyncIterator[Traffic]:
    at = shop.service.address
    async with (
        load([at] * HANDS, UnknownPages(), 0.01) as computed,
        load([at] * 4, [KEPT], 0.01) as kept,
        load([at] * 2, ["/livez"], 0.01) as live,
    ):
        yield Traffic(computed, kept, live)


class UnknownPages(list[str]):
    """Each time that it is walked, one page that no cache has."""

    def __iter__(self) -> Iterator[str]:
        while True:
            yield unknown_page()


def slowest(answers: list[Answer]) -> float:
    """Milliseconds."""
    return 1000 * max((each.seconds for each in answers), default=0.0)
