"""uvicorn's HTTP protocol with bounded pipelining. A lost connection also ends the request that runs."""

import select
from asyncio import Transport
from collections.abc import Sized

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from ops.asgi.disconnect import HAS_LEFT
from ops.gunicorn.draining import DrainingProtocol

# Requests that wait for the one before them while more are read. The rest of one read of uvloop's comes on top.
MAX_WAITING_REQUESTS = 16


class Backpressure(FlowControl):
    """Reads on only if few requests wait.

    Uvicorn's own reads on after each answer, and whenever the application looks for content or for the client's
    leaving: another 256 kB of requests each time, which take some 15 MB while they wait.
    """

    def __init__(self, transport: Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting
        self.was_paused = False  # since it was last set

    def pause_reading(self) -> None:
        self.was_paused = True
        super().pause_reading()

    def resume_reading(self) -> None:
        if len(self._waiting) < MAX_WAITING_REQUESTS:
            super().resume_reading()


class PipeliningProtocol(DrainingProtocol):
    """Bounds the requests that wait, and marks the running one as disconnected, too, when the connection is lost."""

    flow: Backpressure
    _running: RequestResponseCycle | None = None  # the request that the application has, or had last

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        self.flow = Backpressure(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # marks the newest request as disconnected
        if self._running:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        cycle.scope[HAS_LEFT] = self._has_left  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def _has_left(self) -> bool:
        """Ask the kernel whether the connection is lost: the event loop hears of it some turns later. 2 us.

        A client that has only closed its own side waits for its answer.
        """
        state = select.poll()
        state.register(self.transport.get_extra_info("socket"), 0)  # POLLERR and POLLHUP come unasked
        if not self.transport.is_closing() and not state.poll(0):
            return False
        if self._running:
            self._running.disconnected = True
        return True
