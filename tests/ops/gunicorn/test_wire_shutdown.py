"""A server that stops ends its connections as uvicorn does, with the wire's answers on them or without."""

import time
from collections.abc import Iterator

import pytest
from django.test import override_settings

from ops.gunicorn.limits import Limits
from ops.telemetry.readiness import readiness
from tests.ops.asgi import pages
from tests.ops.asgi.views import DEADLINE
from tests.ops.gunicorn.corpus import GET, HALF, MISS, POST, SLOW, TARGET, request
from tests.ops.gunicorn.twins import TIMES, Server, Twins, read_all, twins


@pytest.fixture
def pair() -> Iterator[Twins]:
    with twins(timeout_keep_alive=65) as pair:
        pair.warm(TARGET)
        yield pair


def stop(server: Server) -> None:
    server.should_exit = True
    while server.servers[0].is_serving():
        server.run_there(server.read())


@pytest.mark.parametrize("segments", [[], [GET], [GET, GET], [GET, MISS], [MISS, GET]])
def test_idle_connections_are_closed(pair: Twins, segments: list[bytes]) -> None:
    for server in pair.wire, pair.layer:
        with server.connect() as connection:
            for segment in segments:
                connection.sendall(segment)
                server.run_there(server.settle())
            stop(server)
            assert read_all(connection).count(b"HTTP/1.1 ") == len(segments)


@pytest.mark.parametrize("before", [b"", GET, MISS])
def test_the_rest_of_a_head_has_a_last_moment_to_come(pair: Twins, before: bytes) -> None:
    for server in pair.wire, pair.layer:
        with server.connect() as connection:
            connection.sendall(before + HALF)
            server.run_there(server.settle())
            stop(server)
            connection.sendall(GET.removeprefix(HALF))
            answers = read_all(connection)
            assert answers.count(b"HTTP/1.1 200 ") == 1 + (before == GET)
            assert answers.lower().count(b"\r\nconnection: close\r\n") <= 1


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


@pytest.mark.parametrize("segment", [GET, MISS, GET + MISS + GET])
def test_while_it_drains_the_last_answer_says_close(
    pair: Twins, monkeypatch: pytest.MonkeyPatch, segment: bytes
) -> None:
    """The wire's, too, which leaves that to uvicorn."""
    with pair.wire.connect() as connection:
        connection.sendall(GET)
        pair.wire.run_there(pair.wire.settle())
        monkeypatch.setattr(readiness, "draining", True)
        connection.sendall(segment)
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 ") == 1 + segment.count(b"GET ")
    assert answers.lower().count(b"\r\nconnection: close\r\n") == 1


LIMITS = Limits(
    max_target_bytes=8192,
    max_head_bytes=32768,
    max_fields=100,
    patience_seconds=60,
    min_bytes_per_second=400,
    linger_seconds=0.3,
)


@pytest.mark.parametrize("data", [b"", HALF, POST, POST[:-1], MISS + POST[:-1], SLOW[:-1]], ids=repr)
@override_settings(REQUEST_LIMITS=LIMITS)
def test_a_stop_is_not_held_up(pair: Twins, data: bytes) -> None:
    """By what has not come whole: what is left for it is a farewell."""
    with pair.wire.connect() as connection:
        connection.sendall(data)
        pair.wire.run_there(pair.wire.read())
        began = time.monotonic()
        stop(pair.wire)
        read_all(connection)
        assert time.monotonic() - began < DEADLINE / 2


@override_settings(REQUEST_LIMITS=LIMITS)
def test_content_that_comes_during_a_stop(pair: Twins) -> None:
    with pair.wire.connect() as connection:
        connection.sendall(request(b"/zoo/length", b"Content-Length: 1000", method=b"POST"))
        pair.wire.run_there(pair.wire.read())
        stop(pair.wire)
        connection.sendall(b"x" * 1000)
        assert read_all(connection).endswith(b"\r\n\r\n1000")
