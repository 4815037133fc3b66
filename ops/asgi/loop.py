"""The event loop of a worker: uvloop, whose listening sockets accept a few connections at a time.

libuv accepts until nobody waits, so that one of the workers that share a socket takes most of what comes at once: of
32 connections 26, 29 or all 32. In small batches the others get their share meanwhile. Unlike SO_REUSEPORT, a
connection that waits is nobody's, and outlives a worker that is killed.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import uvloop

# What a worker accepts at most in one go, and how long it then leaves the rest to others: the resolution of a timer.
# 4,000 connections a second and worker are more than it can answer.
BATCH = 4
PAUSE = 0.001  # seconds
# What a connection gets that was accepted just before the end, to send the request that it was opened for.
LAST_MOMENT = 0.1  # seconds; uvicorn waits as long before it counts who is left


class Loop(uvloop.Loop):
    async def create_server(self, protocol_factory: Any, *args: Any, sock: Any = None, **options: Any) -> Any:
        """As asyncio's; for a socket that listens already, without TLS, one that accepts in batches."""
        if sock is None or options.get("ssl"):
            return await super().create_server(protocol_factory, *args, sock=sock, **options)
        return Batches(self, sock, protocol_factory)


class Batches:
    """The part of asyncio.Server that uvicorn uses."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        protocol_factory: Callable[[], asyncio.Protocol],
    ) -> None:
        sock.settimeout(0)
        self.sockets = [sock]
        self._loop, self._protocol_factory = loop, protocol_factory
        self._connecting: set[asyncio.Task[Any]] = set()
        self._began, self._accepted = 0.0, 0  # of this batch
        self._listen()

    def close(self) -> None:
        for sock in self.sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self.sockets = []

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _listen(self) -> None:
        for sock in self.sockets:
            self._loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self.sockets[0].accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was faster, or the client left
            return
        self._pace()
        connection.settimeout(0)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serve(connection)

    def _pace(self) -> None:
        """Leave the rest to others for a moment, once a batch is full."""
        now = self._loop.time()
        if now - self._began > PAUSE:
            self._began, self._accepted = now, 0
        self._accepted += 1
        if self._accepted == BATCH:
            self._loop.remove_reader(self.sockets[0])
            self._loop.call_later(PAUSE, self._listen)

    def _serve(self, connection: socket.socket) -> None:
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol_factory, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: "asyncio.Task[Any]") -> None:
        """Tell a connection that the server stops, if uvicorn told all others while this one was being made.

        It would stay open as long as its client likes: a stop under load took 18 s instead of one.
        """
        self._connecting.discard(task)
        if not self.sockets and not task.cancelled() and not task.exception():
            _, protocol = task.result()
            self._loop.call_later(LAST_MOMENT, protocol.shutdown)


def new_event_loop() -> Loop:
    return Loop()
