"""uvicorn's protocol, with what it forgets when requests come before the ones ahead of them are answered."""

from asyncio import Transport
from collections.abc import Sized

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MOST = 16  # requests that wait for the one before them while more are read; what uvloop reads at once comes on top


class Backpressure(FlowControl):
    """Reads on only if few requests wait.

    Uvicorn's own reads on after each answer, and whenever the application looks for content or for the client's
    leaving: another 256 kB of requests each time, which take some 15 MB while they wait.
    """

    def __init__(self, transport: Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if len(self._waiting) < MOST:
            super().resume_reading()


class PipeliningProtocol(HttpToolsProtocol):
    """Bounds what waits, and tells a request of a lost connection though others wait behind it."""

    _running: RequestResponseCycle | None = None  # the request that the application has, or had last

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as in uvicorn's
        super().connection_made(transport)
        self.flow = Backpressure(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)  # tells the last request
        if self._running:
            self._running.disconnected = True
            self._running.message_event.set()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)
