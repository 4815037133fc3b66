"""Which of two listening sockets of a port gets the connections that are new."""

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from ops.gunicorn.handover import Handover
from ops.machine import addresses
from tests.service import PATIENCE

MANY = 50  # connections: the kernel would give all to one of two sockets once in 2**49 times
LOOPBACK = addresses.both("127.0.0.1")


class Release:
    """Listens at an address, or beside another release."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind((host, port))
        self.port = self.socket.getsockname()[1]
        try:
            self.handover = Handover(self.socket)
        except OSError:
            self.socket.close()
            raise
        self.socket.settimeout(0)

    def serve(self) -> bool:
        self.socket.listen(3 * MANY)
        return self.handover.take_over()

    def accept(self) -> int:
        """How many connections were in the queue."""
        accepted = 0
        with suppress(BlockingIOError):
            while True:
                self.socket.accept()[0].close()
                accepted += 1
        return accepted

    def stop(self) -> None:
        self.handover.leave()
        self.socket.close()


Start = Callable[[], Release]


@pytest.fixture(params=LOOPBACK)
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts releases at one address."""
    releases: list[Release] = []

    def begin() -> Release:
        releases.append(Release(request.param, releases[0].port if releases else 0))
        return releases[-1]

    yield begin
    for release in releases:
        release.socket.close()


def connect(release: Release) -> None:
    """Many clients, to the port of a release."""
    for _ in range(MANY):
        socket.create_connection(release.socket.getsockname()[:2], PATIENCE).close()


def test_the_kernel_spreads(start: Start) -> None:
    """Else the tests below would show nothing."""
    first, second = start(), start()
    for release in first, second:
        release.socket.listen(MANY)
    connect(first)
    assert first.accept() > 0
    assert second.accept() > 0


def test_one_after_another(start: Start) -> None:
    """A release takes over from the one before, which gets nothing more, and has its queue."""
    first = start()
    assert not first.serve()
    for _ in range(3):
        second = start()
        assert second.handover.has_elder()
        connect(first)
        assert second.serve()
        connect(first)
        assert (first.accept(), second.accept()) == (MANY, MANY)
        first.stop()
        connect(second)
        assert second.accept() == MANY
        first = second
    assert not first.handover.take_over()


def test_the_first_leaves_before_the_second_takes_over(start: Start) -> None:
    first = start()
    first.serve()
    second = start()
    connect(first)
    second.socket.listen(MANY)
    first.handover.leave()
    connect(first)
    assert (first.accept(), second.accept()) == (MANY, MANY)


def test_the_second_leaves(start: Start) -> None:
    """The first has all as before, and may be followed by another one."""
    first = start()
    first.serve()
    second = start()
    second.serve()
    second.handover.leave()
    connect(first)
    assert (first.accept(), second.accept()) == (MANY, 0)
    second.socket.close()
    third = start()
    assert third.serve()
    connect(first)
    assert (first.accept(), third.accept()) == (0, MANY)


def test_the_only_one_leaves(start: Start) -> None:
    """It accepts until its socket is closed, as for DRAIN_SECONDS."""
    only = start()
    only.serve()
    only.handover.leave()
    connect(only)
    assert only.accept() == MANY


def test_one_that_dies(start: Start) -> None:
    """It says nothing, and the other one has all."""
    first = start()
    first.serve()
    second = start()
    second.serve()
    second.socket.close()
    connect(first)
    assert first.accept() == MANY


def test_a_third_is_refused(start: Start) -> None:
    first = start()
    first.serve()
    start().serve()
    with pytest.raises(OSError, match="two releases listen there") as refusal:
        start()
    assert refusal.value.errno == errno.EADDRINUSE
    first.stop()
    start()
