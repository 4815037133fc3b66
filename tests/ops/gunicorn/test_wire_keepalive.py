"""An idle connection is closed after the wire's answers as after uvicorn's, and no other is."""

import time
from collections.abc import Iterator

import pytest

from tests.ops.asgi import pages
from tests.ops.asgi.views import DEADLINE
from tests.ops.gunicorn.corpus import BROWSER, GET, HALF, MISS, SLOW, TARGET
from tests.ops.gunicorn.twins import Server, Twins, read_all, read_one, twins

IDLE = 0.2  # seconds that a connection may be idle


@pytest.fixture(scope="module")
def pair() -> Iterator[Twins]:
    with twins(timeout_keep_alive=IDLE) as pair:
        pair.warm(TARGET)
        yield pair


def wait_until_idle(server: Server) -> None:
    """For longer than the server keeps a connection that is idle."""
    with server.connect() as connection:
        connection.sendall(GET)
        read_all(connection)


@pytest.mark.parametrize(
    "segments",
    [[GET], [GET, GET], [GET + GET], [MISS, GET], [GET, MISS], [GET + MISS], [BROWSER]],
)
def test_idle_connection_is_closed(server: Server, segments: list[bytes]) -> None:
    with server.connect() as connection:
        for segment in segments:
            connection.sendall(segment)
            server.run_there(server.settle())
        answered = time.monotonic()
        assert read_all(connection).count(b"HTTP/1.1 ") == b"".join(segments).count(b"\r\n\r\n")
        assert IDLE / 2 < time.monotonic() - answered < DEADLINE / 2


def test_connection_in_use_is_not_closed(server: Server) -> None:
    with server.connect() as connection, connection.makefile("rb") as answers:
        until = time.monotonic() + 3 * IDLE
        while time.monotonic() < until:
            connection.sendall(GET)
            read_one(answers)
        answered = time.monotonic()
        assert answers.read() == b""
        assert time.monotonic() - answered > IDLE / 2


@pytest.mark.parametrize("segments", [[GET + SLOW], [GET, SLOW], [GET, GET, SLOW], [GET + SLOW + GET]])
def test_connection_with_a_request_is_not_closed(server: Server, segments: list[bytes]) -> None:
    pages.started.clear()
    pages.released.clear()
    with server.connect() as connection, connection.makefile("rb") as answers:
        for segment in segments:
            connection.sendall(segment)
            server.run_there(server.read())
        assert pages.started.wait(DEADLINE)
        wait_until_idle(server)
        pages.released.set()
        for _ in range(b"".join(segments).count(b"GET")):
            read_one(answers)
        assert answers.read() == b""


def test_half_a_request_is_waited_for(server: Server) -> None:
    """For longer than for a next one: test_edge.py has the limit."""
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(GET)
        read_one(answers)
        connection.sendall(HALF)
        server.run_there(server.read())
        wait_until_idle(server)
        connection.sendall(GET.removeprefix(HALF))
        read_one(answers)
