"""Another service under a test's control, on a real socket: it answers well, badly, late or not at all."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.service import PATIENCE

Behaviour = Callable[["Source", socket.socket], None]


@dataclass
class Source:
    """A server that handles each request by `behave`, and keeps connections alive as long as that returns."""

    behave: Behaviour
    listener: socket.socket
    requests: list[bytes] = field(default_factory=list)  # their heads
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def wait_for_a_request(self) -> None:
        assert self.arrived.acquire(timeout=PATIENCE)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def accept(self) -> None:
        with suppress(OSError):  # of a listener that is shut down
            while True:
                connection, _ = self.listener.accept()
                self.connections += 1
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def end(self) -> None:
        self.ended.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in [*self._open]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while head := _head(connection):
                self.requests.append(head)
                self.arrived.release()
                self.behave(self, connection)
        self._open.discard(connection)


def _head(connection: socket.socket) -> bytes:
    """A request's head; nothing once the client has closed. Requests here have no content, or a short one."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(65536)
        if not piece:
            return b""
        head += piece
    return head


@contextmanager
def source(behave: Behaviour) -> Iterator[Source]:
    """It listens until the block ends."""
    running = Source(behave, socket.create_server(("127.0.0.1", 0)))
    acceptor = threading.Thread(target=running.accept, daemon=True)
    acceptor.start()
    try:
        yield running
    finally:
        running.end()
        acceptor.join(PATIENCE)


def answers(content: bytes, status: str = "200 OK", **fields: str) -> Behaviour:
    """A whole answer."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{lines}\r\n".encode()
    return lambda _source, connection: connection.sendall(head + content)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One after the other, and the last again and again."""
    left = list(behaviours)

    def behave(of: Source, connection: socket.socket) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(of, connection)

    return behave


def says(piece: bytes) -> Behaviour:
    """Send this, and close."""

    def behave(_source: Source, connection: socket.socket) -> None:
        connection.sendall(piece)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def hangs(of: Source, connection: socket.socket) -> None:
    """Answer nothing until the test ends or the client has left."""
    connection.settimeout(0.05)
    while not of.ended.is_set():
        with suppress(TimeoutError):
            if not connection.recv(1):
                break


def resets(_source: Source, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def drips(head: bytes, piece: bytes, *, pause: float = 0.01) -> Behaviour:
    """Send `head`, and `piece` again and again, without end."""

    def behave(of: Source, connection: socket.socket) -> None:
        connection.sendall(head)
        while not of.ended.is_set():
            connection.sendall(piece)
            if pause:
                time.sleep(pause)

    return behave
