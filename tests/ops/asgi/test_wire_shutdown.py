"""A server that stops ends its connections as uvicorn does, with the wire's answers on them or without."""

from collections.abc import Iterator

import pytest

from tests.ops.asgi import pages
from tests.ops.asgi.corpus import GET, HALF, MISS, SLOW, TARGET
from tests.ops.asgi.twins import TIMES, Server, Twins, read_all, twins
from tests.ops.asgi.views import DEADLINE


@pytest.fixture
def pair() -> Iterator[Twins]:
    with twins(timeout_keep_alive=65) as pair:
        pair.warm(TARGET)
        yield pair


def stop(server: Server) -> None:
    server.should_exit = True
    while server.servers[0].is_serving():
        server.run_there(server.read())


@pytest.mark.parametrize("segments", [[], [GET], [GET, GET], [GET, MISS], [MISS, GET], [GET + HALF]])
def test_idle_connections_are_closed(pair: Twins, segments: list[bytes]) -> None:
    for server in pair.wire, pair.layer:
        with server.connect() as connection:
            for segment in segments:
                connection.sendall(segment)
                server.run_there(server.settle())
            stop(server)
            assert read_all(connection).count(b"HTTP/1.1 ") == len(segments)


def test_requests_that_have_come_are_answered(pair: Twins) -> None:
    answered = []
    for server in pair.wire, pair.layer:
        pages.started.clear()
        pages.released.clear()
        with server.connect() as connection:
            connection.sendall(GET + SLOW + GET)
            assert pages.started.wait(DEADLINE)
            stop(server)
            pages.released.set()
            answered.append(TIMES.sub(b"", read_all(connection)))
    assert answered[0] == answered[1]
    assert answered[0].count(b"HTTP/1.1 200 OK") == 3
