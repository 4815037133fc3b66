"""Several services, one worker each so that a worker can be addressed, around one Valkey and one Postgres.

Each has a way to Redis of its own, which a test can harm; the way to Postgres is shared, harmed and counted.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.db import connection

from tests.conftest import ROWS
from tests.e2e.cache.client import Address
from tests.e2e.cache.proxy import Network, Way
from tests.e2e.cache.valkey import Valkey
from tests.service import PATIENCE, ROOT, Service, serve
from tests.spare import Database
from tests.wiretap import Wiretap, tap

PREFIX = "chaos"
INCREMENT = "UPDATE shop_product SET demand_qty = demand_qty + 1 WHERE id = %s RETURNING demand_qty"


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
    """Wait until `condition` holds; returns how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return time.monotonic() - began


@dataclass
class Member:
    """A service and its way to Redis."""

    service: Service
    redis: Way

    @property
    def address(self) -> Address:
        return self.service.address

    def get(self, path: str) -> httpx.Response:
        return self.service.client.get(path)

    def post(self, path: str) -> httpx.Response:
        return self.service.client.post(path)

    def how(self, path: str) -> str:
        """Cache-Status of an answer, which has to be 200."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        return response.headers["cache-status"]

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        arbiter = self.service.process.pid
        return [int(pid) for pid in Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()]

    def kill_workers(self) -> None:
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)


@dataclass
class Fleet:
    members: list[Member]
    valkey: Valkey
    postgres: Way
    wiretap: Wiretap
    wiretap_socket: Path
    listeners: int  # services that hear of changes

    @property
    def addresses(self) -> list[Address]:
        return [member.address for member in self.members]

    def subscribers(self) -> int:
        """Not by PUBSUB NUMSUB, which tells Valkey 9.1.2's eighth one wrong."""
        return len(self.valkey.client.client_list(_type="pubsub"))

    def flush(self) -> None:
        """Nothing is cached anywhere."""
        self.valkey.client.flushall()
        self.valkey.client.publish(f"{PREFIX}:changed", b'["shop.product","shop.category"]')

    def mend(self) -> None:
        """Make all well again: each worker hears of changes, and answers from Redis."""
        self.valkey.thaw()
        if not self.valkey.is_well:
            self.valkey.stop()
            self.valkey.start()
        for member in self.members:
            member.redis.clear()
        self.postgres.clear()
        until(lambda: self.subscribers() == self.listeners, "the subscriptions")
        for member in self.members:
            until(lambda m=member: m.get(f"/api/products/{next(_spare)}").status_code == 200, "Postgres")  # type: ignore[misc]
            self.wait_for_redis(member)
        self.flush()
        self.wiretap.clear()

    def write_unheard(self, product: int) -> int:
        """Add one to its counter and let Redis know, but lose the message to the workers; returns its value."""
        with Database(str(connection.settings_dict["NAME"])).connect() as database:
            [value] = database.execute(INCREMENT, [product]).fetchone() or (0,)
        tags = ("shop.product", f"shop.product:{product}")
        self.valkey.client.delete(*(f"{PREFIX}:tag:{tag}" for tag in tags))
        return int(value)

    def manage(self, *command: str) -> None:
        """Run `manage.py` on the fleet's Redis and database."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={
                **os.environ,
                "DATABASE_URL": Database(str(connection.settings_dict["NAME"])).url,
                "REDIS_URL": f"unix://{self.valkey.socket}?db=0",
                "CACHE_PREFIX": PREFIX,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def restart_valkey(self) -> None:
        """A new one in its place, in its default configuration, and open ways to it."""
        self.valkey.stop()
        self.valkey.start()
        for member in self.members:
            member.redis.clear()

    def wait_for_redis(self, member: Member) -> float:
        """Wait until the member's entries get into Redis; returns how long that took."""
        asked: list[str] = []

        def stores() -> bool:
            product = next(_spare)
            assert member.get(f"/api/products/{product}").status_code == 200
            asked.append(f"{PREFIX}:entry:*/api/products/{product}[?]")
            return any(self.valkey.client.keys(pattern) for pattern in asked)

        return until(stores, "a worker that uses Redis")


_spare = cycle(range(5000, ROWS))  # products that no test asks for


@contextmanager
def fleet(
    database: Mapping[str, Any], valkey: Valkey, links: Network, directory: Path, *modes: str
) -> Iterator[Fleet]:
    """A service for each of the modes (PAGE_CACHE)."""
    with ExitStack() as stack:
        wiretap = stack.enter_context(tap(database, directory))
        tapped = directory / ".s.PGSQL.1"
        postgres = links.way(tapped)
        members = [
            stack.enter_context(
                member(wiretap, postgres, links.way(valkey.socket), directory / str(number), PAGE_CACHE=mode)
            )
            for number, mode in enumerate(modes)
        ]
        yield Fleet(members, valkey, postgres, wiretap, tapped, len(members))


@contextmanager
def member(
    wiretap: Wiretap, postgres: Way, redis: Way, directory: Path, workers: int = 1, **environment: str
) -> Iterator[Member]:
    directory.mkdir(exist_ok=True)
    url = urlsplit(wiretap.url)
    own = {
        "DATABASE_URL": f"postgresql://{url.username}:{url.password or ''}@127.0.0.1:{postgres.port}{url.path}"
        "?sslmode=disable&gssencmode=disable",  # the wiretap reads the messages
        "REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        "CACHE_PREFIX": PREFIX,
        "DJANGO_SETTINGS_MODULE": "tests.e2e.cache.settings",
    }
    with serve(own | environment, directory, workers=workers) as service:
        yield Member(service, redis)
