"""A service under load that reloads and stops cuts no request, and says on every connection that it ends."""

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection

from ops.gunicorn.loop import LAST_MOMENT_SECONDS
from tests.ops.gunicorn.twins import read_one
from tests.ops.telemetry.conftest import children, eventually
from tests.service import PATIENCE, serve

pytestmark = pytest.mark.lean

TARGETS = ["/api/products?limit=2", "/livez", "/api/openapi.json"]  # one by the wire, the others by ASGI
THINK = [0.0, 0.0, 0.02, 0.3]  # seconds between an answer and the next request of the same connection


class Client:
    """Asks again and again over one connection, and over the next once an answer has said that it ends."""

    def __init__(self, address: tuple[str, int], target: str, think: float, *, keeps: bool = True) -> None:
        """`keeps`: whether it asks again over the same connection."""
        self.address, self.think, self.keeps = address, think, keeps
        self.request = f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.seen: Counter[str] = Counter()  # answers by status; what failed otherwise, by its kind
        self.answered = threading.Event()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.done.is_set():
            try:
                connection = socket.create_connection(self.address, PATIENCE)
            except ConnectionRefusedError:  # it has stopped
                self.seen["refused"] += 1
                return
            with connection, connection.makefile("rb") as answers:
                self.use(connection, answers)

    def use(self, connection: socket.socket, answers: Any) -> None:
        while not self.done.is_set():
            try:
                connection.sendall(self.request)
                head = read_one(answers)
            except (OSError, AssertionError):
                self.seen["cut"] += 1
                return
            self.seen[head.split()[1].decode()] += 1
            self.answered.set()
            if b"\r\nconnection: close\r\n" in head.lower():
                self.seen["told"] += 1
                assert answers.read() == b""
                return
            if self.done.wait(self.think) or not self.keeps:
                return


@contextmanager
def load(
    address: tuple[str, int], thinks: Iterable[float] = THINK, *, comers: int = 0
) -> Iterator[list[Client]]:
    """Clients, and `comers` more that open a connection for each request."""
    clients = [Client(address, target, think) for target in TARGETS for think in thinks]
    clients += [Client(address, "/livez", 0.0, keeps=False) for _ in range(comers)]
    for client in clients:
        client.thread.start()
    try:
        yield clients
    finally:
        end(clients)


def end(clients: Iterable[Client]) -> None:
    for client in clients:
        client.done.set()
    for client in clients:
        client.thread.join(PATIENCE)


def wait_for_answers(clients: Iterable[Client]) -> None:
    for client in clients:
        client.answered.clear()
    for client in clients:
        assert client.answered.wait(PATIENCE)


def seen_by(clients: Iterable[Client]) -> Counter[str]:
    return sum((client.seen for client in clients), Counter[str]())


def variables(directory: Path, **more: str) -> dict[str, str]:
    """Of a service with the shop's rows."""
    database = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    own = {"DATABASE_URL": database.geturl(), "PAGE_CACHE": "on", "CACHE_PREFIX": directory.name}
    return own | more


def are_gone(arbiter: int, workers: list[int]) -> bool:
    return not {*workers} & children(arbiter).keys()


@pytest.mark.chaos("SIGTERM, HUP, handover under keep-alive load")
def test_nothing_is_cut_at_reloads_and_a_stop(django_db_setup: None, tmp_path: Path) -> None:
    """Three reloads and a stop cut no request; each connection hears that it ends; the exit takes at most 25 s."""
    with serve(variables(tmp_path), tmp_path, workers=2) as running, load(running.address) as clients:
        arbiter = running.process.pid
        for _ in range(3):
            wait_for_answers(clients)
            eventually(lambda: len(children(arbiter)) == 2)
            before = [*children(arbiter)]
            os.kill(arbiter, signal.SIGHUP)
            eventually(partial(are_gone, arbiter, before))
        wait_for_answers(clients)
        began = time.monotonic()
        os.kill(arbiter, signal.SIGTERM)
        assert running.process.wait(PATIENCE) == 0
        assert time.monotonic() - began < LAST_MOMENT_SECONDS + 5  # 1.3 s on an idle machine
    assert seen_by(clients).keys() - {"refused"} == {"200", "told"}, seen_by(clients)
    assert all(client.seen["told"] > 3 for client in clients)
