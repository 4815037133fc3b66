"""The event loop of a worker: uvloop, with listening sockets that accept a few connections at a time.

libuv accepts until the queue is empty, so that one of the workers that share a socket takes most of a burst: of
32 connections 26, 29 or all 32. If each accepts in small batches, the others get their share. Unlike with
SO_REUSEPORT, a connection in the queue belongs to no worker, and outlives a worker that is killed.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop
from gunicorn.sock import BaseSocket  # type: ignore[import-untyped]

from ops.machine import files

logger = logging.getLogger(__name__)

# Connections that a worker accepts in a row, and its pause after them, in which other workers accept. The pause is
# the resolution of a timer; it allows 4,000 connections a second, more than a worker can answer.
BATCH_CONNECTIONS = 4
PAUSE_SECONDS = 0.001  # seconds
# The time for a connection that was accepted just before the server stopped accepting, or that is idle then, to send
# a request (ops/gunicorn/draining.py). It is longer than a busy client takes between two requests.
LAST_MOMENT_SECONDS = 1.0  # seconds

# The errors of accept if the process, the machine or the kernel has no room for one more connection. The connection
# stays in the queue, so that accepting again at once would be a busy loop.
SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
RETRY_SECONDS = 1.0  # seconds until the next attempt, as asyncio's
SHORTAGE_OVER_SECONDS = 5.0  # seconds without a shortage, after which it is over


class Loop(uvloop.Loop):
    async def create_server(self, protocol_factory: Any, *args: Any, sock: Any = None, **options: Any) -> Any:
        """As asyncio's; for a socket without TLS, return a server that accepts in batches."""
        if sock is None or options.get("ssl"):
            return await super().create_server(protocol_factory, *args, sock=sock, **options)
        if not BaseSocket._is_listening(sock):  # noqa: SLF001  a second release's (ops/gunicorn/handover.py)
            sock.listen(options.get("backlog", 100))
        return Batches(self, sock, protocol_factory)


class Batches:
    """The part of asyncio.Server that uvicorn uses, which accepts in batches."""

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
        self._began, self._accepted = 0.0, 0  # the time when this batch began, and its connections
        self._most = files.most_connections()
        self._shortage: asyncio.TimerHandle | None = None  # ends a shortage; None if there is none
        self._listen()

    def close(self) -> None:
        """Empty the socket's queue, and close it: there may be no other worker to accept from it."""
        for sock in self.sockets:
            self._loop.remove_reader(sock)
            with suppress(OSError):
                while self._has_room():
                    self._serve(sock.accept()[0])
            sock.close()
        self.sockets = []
        if self._shortage:
            self._shortage.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _listen(self) -> None:
        for sock in self.sockets:
            if self._has_room():
                self._loop.add_reader(sock, self._accept)
            else:
                self._pause_accepting("the limit of open files is near")

    def _accept(self) -> None:
        try:
            connection, _ = self.sockets[0].accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was faster, or the client left
            return
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            self._pause_accepting(os.strerror(error.errno))
            return
        self._serve(connection)
        if connection.fileno() >= self._most:
            self._pause_accepting("the limit of open files is near")
            return
        now = self._loop.time()
        if now - self._began > PAUSE_SECONDS:
            self._began, self._accepted = now, 0
        self._accepted += 1
        # A full batch leaves the rest to other workers for a moment.
        if self._accepted == BATCH_CONNECTIONS:
            self._loop.remove_reader(self.sockets[0])
            self._loop.call_later(PAUSE_SECONDS, self._listen)

    def _has_room(self) -> bool:
        """Whether one more connection leaves enough files for the open connections to work."""
        try:
            lowest = os.dup(self.sockets[0].fileno())
        except OSError:
            return False
        os.close(lowest)
        return lowest < self._most

    def _pause_accepting(self, reason: str) -> None:
        """Accept nothing for RETRY_SECONDS. The log has one line when a shortage begins, and one when it is over."""
        if self._shortage:
            self._shortage.cancel()
        else:
            logger.error("No more connections are accepted, those that are open go on: %s", reason)
        self._shortage = self._loop.call_later(SHORTAGE_OVER_SECONDS, self._end_shortage)
        self._loop.remove_reader(self.sockets[0])
        self._loop.call_later(RETRY_SECONDS, self._listen)

    def _end_shortage(self) -> None:
        self._shortage = None
        logger.info("Connections are accepted again")

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol_factory, connection))
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: "asyncio.Task[Any]") -> None:
        """Shut down a connection that was still being made when uvicorn shut down all others.

        Otherwise it would stay open as long as its client likes: a stop under load took 18 s instead of one.
        """
        self._connecting.discard(task)
        if not self.sockets and not task.cancelled() and not task.exception():
            _, protocol = task.result()
            self._loop.call_later(LAST_MOMENT_SECONDS, protocol.shutdown)


def new_event_loop() -> Loop:
    return Loop()
