"""A second release on the port of the first, started beside it: REUSE_PORT=1."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
from django.db import connection

from ops.asgi.types import Receive, Scope, Send
from tests.e2e.test_draining import end, load, seen_by, variables, wait_for_answers
from tests.extra import OWN_SESSIONS
from tests.ops.telemetry.conftest import children, eventually, free_port
from tests.ops.test_server import status
from tests.proxies import nginx
from tests.service import PATIENCE, Service, serve

pytestmark = pytest.mark.lean

APPLICATION = "config.asgi:application"
READY = b"New connections come to this release"
THINK = [0.0, 0.3]  # seconds between an answer and the next request of the same connection
EXIT_SECONDS = 25.0  # seconds from SIGTERM to the end, which Kubernetes and compose wait for
PROXY = """
    upstream release {{ server 127.0.0.1:{upstream}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://release; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host localhost;
        }}
    }}
"""


class Releases:
    """Of one service on one port."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.port = directory, free_port()
        self.address = ("127.0.0.1", self.port)

    def run(self, revision: str, application: str = APPLICATION) -> AbstractContextManager[Service]:
        """With REUSE_PORT."""
        own = self._prepare(revision, REUSE_PORT="1")
        return serve(own, self.directory / revision, workers=2, application=application, port=self.port)

    def run_on(self, listener: socket.socket, revision: str) -> AbstractContextManager[Service]:
        """On a socket that another process holds, as systemd does."""
        own = self._prepare(revision)
        return serve(own, self.directory / revision, workers=2, listener=listener)

    def _prepare(self, revision: str, **more: str) -> dict[str, str]:
        own = variables(self.directory, REVISION=revision, **more)
        own["DATABASE_URL"] += f"{'&' if '?' in own['DATABASE_URL'] else '?'}application_name={revision}"
        (self.directory / revision).mkdir()
        return own


async def unfit(scope: Scope, receive: Receive, send: Send) -> None:
    """An application whose worker cannot start."""
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "it is unfit"})


@pytest.fixture
def releases(django_db_setup: None, tmp_path: Path) -> Releases:
    return Releases(tmp_path)


@contextmanager
def proxied(releases: Releases) -> Iterator[tuple[str, int]]:
    """The address of a proxy that keeps connections to the releases."""
    port = free_port()
    with nginx(PROXY.format(port=port, upstream=releases.port), releases.directory):
        yield "127.0.0.1", port


def stop(release: Service) -> None:
    began = time.monotonic()
    os.kill(release.process.pid, signal.SIGTERM)
    assert release.process.wait(PATIENCE) == 0
    assert time.monotonic() - began < EXIT_SECONDS


def sessions(revision: str) -> int:
    """The connections to Postgres that a release has."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {OWN_SESSIONS} AND application_name = %s", [revision])
        return int(cursor.fetchone()[0])


def is_up(release: Service) -> bool:
    return release.log.read_bytes().count(b"Application startup complete") == 2


@pytest.mark.chaos("SIGTERM, HUP, handover under keep-alive load")
@pytest.mark.parametrize(
    "front", [lambda releases: nullcontext(releases.address), proxied], ids=["direct", "nginx"]
)
def test_a_handover_fails_no_request(
    releases: Releases, front: Callable[[Releases], AbstractContextManager[tuple[str, int]]]
) -> None:
    """From one release to the next under load, directly and through nginx: each request is answered.

    The first ends within 25 s, with all of its connections to Postgres.
    """
    with releases.run("first") as first, front(releases) as address:
        eventually(lambda: is_up(first))
        with load(address, THINK, comers=2) as clients:
            wait_for_answers(clients)
            with releases.run("second") as second:
                second.wait_for(READY)
                wait_for_answers(clients)
                stop(first)
                eventually(lambda: sessions("first") == 0)
                assert sessions("second") > 0
                wait_for_answers(clients)
                end(clients)
    assert seen_by(clients).keys() - {"told"} == {"200"}, seen_by(clients)


@pytest.mark.chaos("SIGTERM, HUP, handover under keep-alive load")
def test_a_handover_on_a_socket_that_both_have(releases: Releases) -> None:
    """As with systemd's socket activation: each request is answered."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        releases.run_on(listener, "first") as first,
        load(first.address, THINK, comers=2) as clients,
    ):
        wait_for_answers(clients)
        with releases.run_on(listener, "second") as second:
            eventually(lambda: is_up(second))
            stop(first)
            wait_for_answers(clients)
            end(clients)
    assert seen_by(clients).keys() - {"told"} == {"200"}, seen_by(clients)


def test_a_release_that_cannot_start_takes_no_request(releases: Releases) -> None:
    """It ends again beside the first: each request is answered."""
    with releases.run("first") as first:
        eventually(lambda: is_up(first))
        with load(releases.address, THINK, comers=2) as clients:
            wait_for_answers(clients)
            with releases.run("second", application="tests.e2e.test_handover:unfit") as second:
                assert second.process.wait(PATIENCE) != 0
            assert b"it is unfit" in second.log.read_bytes()
            wait_for_answers(clients)
            end(clients)
    assert seen_by(clients).keys() == {"200"}, seen_by(clients)


def sockets(pid: int) -> int:
    """How many a process has."""
    return sum(str(file.readlink()).startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())


@contextmanager
def frozen(pids: Iterable[int]) -> Iterator[None]:
    """Processes accept nothing until the block ends."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_one_release_has_all_new_connections(releases: Releases) -> None:
    """The second has them once it is ready; and the first again, if the second is stopped instead of it."""
    with releases.run("first") as first:
        eventually(lambda: is_up(first))
        with releases.run("second") as second:
            eventually(lambda: second.log.read_bytes().count(READY) == 2)
            before, after = children(first.process.pid), children(second.process.pid)
            with frozen(before):
                ask_often(second)
            with frozen(after):
                had = sockets(second.process.pid)
                os.kill(second.process.pid, signal.SIGTERM)
                eventually(lambda: sockets(second.process.pid) < had)
                ask_often(first)
        ask_often(first)


def ask_often(release: Service) -> None:
    """Each time over a new connection."""
    for _ in range(20):
        assert status(*release.address) == 200
