"""uvicorn's HTTP protocol with bounded pipelining. A lost connection also ends the request that runs."""

import select
from asyncio import AbstractEventLoop, Transport
from collections.abc import Sized
from contextlib import suppress
from time import perf_counter
from weakref import WeakKeyDictionary

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ops.asgi.disconnect import HAS_LEFT
from ops.gunicorn.draining import DrainingProtocol

# Requests of a connection that may wait for earlier ones before reading stops. Further requests in the same piece
# (PIECE_BYTES) come on top.
MAX_WAITING_REQUESTS = 16
# Seconds for which the kernel's answer holds. One question for each request was 5 % of the cost of a row by id.
ASK_AGAIN_SECONDS = 0.001
# Seconds after a client has left, in which each request asks, since clients leave in crowds: of 2,000 that sent a
# request and left at once, 90 had it computed without these questions, 3 with them.
CROWD_SECONDS = 1.0


class Backpressure(FlowControl):
    """Resumes reading only if few requests wait.

    Uvicorn's own FlowControl resumes after each answer, and whenever the application looks for content or for the
    client's leaving: each time, another 256 kB of requests are read, which take some 15 MB while they wait.
    """

    def __init__(self, transport: Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting
        self.was_paused = False  # whether reading was paused since this was last set
        self.unread = b""  # bytes that have come, and wait for the requests before them

    def pause_reading(self) -> None:
        self.was_paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        if not self.unread and len(self._waiting) < MAX_WAITING_REQUESTS:
            super().resume_reading()


class Hangups:
    """The lost connections of an event loop, some turns before the loop itself hears of the loss."""

    def __init__(self) -> None:
        """Raises AttributeError where the system has no epoll: macOS."""
        self._epoll = select.epoll()
        self._lost: set[int] = set()
        self._asked = self._found = 0.0

    def watch(self, socket: int) -> None:
        """Watch the socket with this number until `forget`."""
        self._epoll.register(socket, select.EPOLLET)  # reported once each; errors and hang-ups need no flag

    def forget(self, socket: int) -> None:
        """End the watch, before another connection gets the number."""
        self._lost.discard(socket)
        with suppress(OSError):
            self._epoll.unregister(socket)

    def has_lost(self, socket: int) -> bool:
        """Whether the connection is lost. It is not if the client has only closed its own side, and waits."""
        now = perf_counter()
        if now - self._asked > ASK_AGAIN_SECONDS or now - self._found < CROWD_SECONDS:
            self._asked = now
            if found := self._epoll.poll(0):
                self._found = now
                self._lost.update(socket for socket, _ in found)
        return socket in self._lost


class NoHangups(Hangups):
    """For a system without epoll: knows of no loss before the event loop does."""

    def __init__(self) -> None:
        pass

    def watch(self, socket: int) -> None:
        pass

    def forget(self, socket: int) -> None:
        pass

    def has_lost(self, socket: int) -> bool:
        return False


_hangups: WeakKeyDictionary[AbstractEventLoop, Hangups] = WeakKeyDictionary()


class PipeliningProtocol(DrainingProtocol):
    """Bounds the requests that wait, and marks the running one as disconnected, too, when the connection is lost."""

    flow: Backpressure
    _running: RequestResponseCycle | None = None  # the request that the application has, or had last

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        self.flow = Backpressure(transport, self.pipeline)
        if (hangups := _hangups.get(self.loop)) is None:
            hangups = _hangups[self.loop] = Hangups() if hasattr(select, "epoll") else NoHangups()
        self._hangups = hangups
        self._socket: int = transport.get_extra_info("socket").fileno()
        self._hangups.watch(self._socket)

    def connection_lost(self, exc: Exception | None) -> None:
        self._hangups.forget(self._socket)
        super().connection_lost(exc)  # marks the newest request as disconnected
        if self._running:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.scope[HAS_LEFT] = self._has_left  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def _has_left(self) -> bool:
        """Whether the client has left. The running request is then marked as disconnected."""
        if not self.transport.is_closing() and not self._hangups.has_lost(self._socket):
            return False
        if self._running:
            self._running.disconnected = True
        return True
