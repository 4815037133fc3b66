"""Nothing stays of a connection, however it ends, and a client that does not read gets no more than it takes."""

import gc
import logging
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ops.asgi.admission import admission
from ops.gunicorn import pipelining
from ops.gunicorn.edge import PIECE_BYTES
from ops.gunicorn.pipelining import MAX_WAITING_REQUESTS
from ops.gunicorn.wire import MAX_REMEMBERED_BYTES
from tests.ops.asgi import pages
from tests.ops.asgi.views import DEADLINE
from tests.ops.gunicorn.corpus import GET, HALF, MISS, POST, SLOW, TARGET, request
from tests.ops.gunicorn.twins import Twins, read_all, read_one, twins

LARGE = request(b"/page/large")
STATES = {
    "nothing": [],
    "hit": [GET],
    "hits": [GET, GET],
    "miss": [MISS],
    "hit and miss": [GET, MISS],
    "hit after a miss": [MISS, GET],
    "half a request": [HALF],
    "half a request after a hit": [GET + HALF],
    "half a body after a hit": [GET, POST[:-2]],
    "slow request": [SLOW],
    "slow request between hits": [GET + SLOW + GET],
    "unread answers": [LARGE * 500],
    "garbage after a hit": [GET, b"\x00"],
    "target that is refused": [request(b"*")],
}


@pytest.fixture(scope="module")
def pair() -> Iterator[Twins]:
    with twins(timeout_keep_alive=65) as pair:
        pair.warm(TARGET, b"/page/large")
        yield pair


def half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """Close it so that the other side gets an error."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("end", [socket.socket.close, reset])
@pytest.mark.parametrize("segments", STATES.values(), ids=STATES.keys())
def test_nothing_stays(
    pair: Twins,
    caplog: pytest.LogCaptureFixture,
    segments: list[bytes],
    end: Callable[[socket.socket], None],
) -> None:
    """Not even a timer, which would keep the protocol for as long as a connection may be idle.

    Nor a circle, which would keep it until the garbage collector looks at what is old: 10 kB for each connection.
    """
    caplog.set_level(logging.ERROR)
    gc.disable()
    pages.released.clear()
    server, connection = pair.wire, pair.wire.connect()
    server.run_there(server.read())
    (protocol,) = map(weakref.ref, server.server_state.connections)
    for segment in segments:
        connection.sendall(segment)
        server.run_there(server.read())
    end(connection)
    server.run_there(server.read())
    pages.released.set()
    server.run_there(server.settle())
    deadline = (
        time.monotonic() + DEADLINE
    )  # on a busy machine the kernel may tell of the end later; a timer takes 65 s
    while protocol() is not None and time.monotonic() < deadline:
        server.run_there(server.read())
    gc.enable()
    assert not caplog.records
    assert protocol() is None


@pytest.mark.parametrize("end", ["half", "close", "reset"])
def test_who_has_left(pair: Twins, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has reset its connection, before the loop hears of it; not one that still reads."""
    monkeypatch.setattr(pipelining, "ASK_AGAIN_SECONDS", 0.0)
    pages.started.clear()
    pages.released.clear()
    with pair.wire.connect() as connection:
        connection.sendall(SLOW)
        assert pages.started.wait(DEADLINE)
        protocol: Any = next(iter(pair.wire.server_state.connections))

        async def leave() -> bool:
            assert not protocol._has_left()
            {"half": half_close, "close": socket.socket.close, "reset": reset}[end](connection)
            return bool(protocol._has_left())

        assert pair.wire.run_there(leave()) is (end == "reset")
        pages.released.set()


@pytest.mark.parametrize("crowd_seconds", [DEADLINE, 0.0])
def test_once_a_client_has_left_each_request_asks(
    crowd_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelining, "ASK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(pipelining, "CROWD_SECONDS", crowd_seconds)
    hangups, clients, served = pipelining.Hangups(), [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(2):
            clients.append(socket.create_connection(listener.getsockname()))
            served.append(listener.accept()[0])
            hangups.watch(served[-1].fileno())
    first, second = (each.fileno() for each in served)
    assert not hangups.has_lost(first)
    reset(clients[0])
    assert hangups.has_lost(first)
    monkeypatch.setattr(pipelining, "ASK_AGAIN_SECONDS", DEADLINE)
    reset(clients[1])
    assert hangups.has_lost(second) is bool(crowd_seconds)
    for each in served:
        hangups.forget(each.fileno())
        each.close()


def test_request_hears_of_the_end_though_others_wait(pair: Twins) -> None:
    for event in pages.started, pages.released, pages.cancelled:
        event.clear()
    with pair.wire.connect() as connection:
        connection.sendall(GET + SLOW + GET)
        assert pages.started.wait(DEADLINE)
        protocol: Any = next(iter(pair.wire.server_state.connections))
        until = time.monotonic() + DEADLINE
        while not protocol._running.message_event._waiters:  # the handler listens to the client after a while
            assert time.monotonic() < until
    assert pages.cancelled.wait(DEADLINE)
    pages.released.set()


def test_little_is_remembered(pair: Twins) -> None:
    with pair.wire.connect() as connection, connection.makefile("rb") as answers:
        for padding in 10, 10_000:
            connection.sendall(request(TARGET, b"X-Padding: " + b"x" * padding))
            read_one(answers)
            protocol: Any = next(iter(pair.wire.server_state.connections))
            assert bool(protocol._known) == (padding < MAX_REMEMBERED_BYTES)


@pytest.mark.parametrize("segments", [[GET], [GET[:9], GET[9:]], [GET * 3], [MISS, GET]])
def test_half_closed(pair: Twins, segments: list[bytes]) -> None:
    """Uvicorn closes when the client has said its last, be it answered or not. What the wire answers, is."""
    server = pair.wire
    with server.connect() as connection:
        for segment in segments[:-1]:
            connection.sendall(segment)
            server.run_there(server.settle())
        connection.sendall(segments[-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).count(b"detail=l1") == b"".join(segments).count(GET)


def test_requests_are_counted(pair: Twins) -> None:
    for server in pair.wire, pair.layer:
        before = server.server_state.total_requests
        server.exchange([GET, GET, GET * 3 + MISS + POST, request(method=b"HEAD")])
        assert server.server_state.total_requests - before == 9  # with the goodbye


@pytest.mark.parametrize("target", [b"/page/large", b"/page/large?"], ids=["wire", "layer"])
def test_client_that_does_not_read(pair: Twins, target: bytes) -> None:
    """What it does not take is neither made nor, beyond a little, even read."""
    server, one, count = pair.wire, request(target, b"X-Padding: " + b"x" * 400), 3000
    with socket.socket() as connection, connection.makefile("rb") as answers:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(DEADLINE)
        connection.connect(server.address)
        server.run_there(server.read())
        protocol: Any = next(iter(server.server_state.connections))
        sender = threading.Thread(target=connection.sendall, args=[one * count])
        sender.start()
        until = time.monotonic() + DEADLINE
        while not (protocol.flow.write_paused and protocol.flow.read_paused):
            assert time.monotonic() < until
            server.run_there(server.read())
        for _ in range(count):
            assert protocol.transport.get_write_buffer_size() < 2**17
            assert (len(protocol.pipeline) - MAX_WAITING_REQUESTS) * len(one) <= PIECE_BYTES
            read_one(answers)
        sender.join(DEADLINE)
    assert not sender.is_alive()


def test_a_segment_with_a_refusal_is_no_single_request(pair: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes once more are two requests once more, with two answers."""
    monkeypatch.setattr(admission, "limit", 0)
    both = MISS + GET
    with pair.wire.connect() as connection, connection.makefile("rb") as answers:
        for status in (b"503", b"503", b"404"):
            if status == b"404":
                monkeypatch.undo()
            connection.sendall(both)
            assert [read_one(answers).split()[1] for _ in range(2)] == [status, b"200"]
        connection.sendall(GET)
        assert read_one(answers).split()[1] == b"200"


def test_where_the_system_has_no_epoll(pair: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: a connection works, and a client that leaves is seen later."""
    monkeypatch.delattr("select.epoll")
    monkeypatch.setattr(pipelining, "_hangups", weakref.WeakKeyDictionary())
    with pair.layer.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(MISS)
        assert read_one(answers).split()[1] == b"404"
