"""A server that stops without cutting a request: first it announces the end of each connection, then it closes it.

An idle connection may carry a request that the server has not read yet. If the server closed it, the client would
lose that request. So once the server gets SIGTERM, each answer has the field `Connection: close`: the client sends
nothing more on that connection, and the server closes it after the answer. A connection without an answer since
SIGTERM stays open until LAST_MOMENT_SECONDS after the server has stopped accepting.

| from | it accepts | answers have `Connection: close` | idle connections |
| --- | --- | --- | --- |
| the start | yes | no | are kept for KEEPALIVE |
| SIGTERM | yes | yes | are kept |
| DRAIN_SECONDS later | no | yes | are kept |
| LAST_MOMENT_SECONDS later | no | yes | are closed |
"""

import signal
import socket
import time
from collections.abc import Callable, MutableSequence
from mmap import mmap
from types import FrameType

from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ops.gunicorn.loop import LAST_MOMENT_SECONDS
from ops.telemetry.readiness import readiness


class DrainingProtocol(HttpToolsProtocol):
    """A connection that ends after an answer with `Connection: close`."""

    timeout_keep_alive: float  # type: ignore[assignment]  # an int in uvicorn, which gives it to call_later

    # The request that is answered with `Connection: close`, while the server drains.
    _last: RequestResponseCycle | None = None

    def on_headers_complete(self) -> None:
        before: RequestResponseCycle | None = self.cycle
        super().on_headers_complete()
        if readiness.draining:
            if before is not None and before is self._last and not before.response_started:
                before.keep_alive = True  # a later request gets the field instead
            self.drain()

    def drain(self) -> None:
        """Have uvicorn send `Connection: close` in the answer to the newest request, and close after it.

        An answer that has begun without the field keeps its connection open.
        """
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request
        if cycle is not None and cycle.keep_alive and not cycle.response_started:
            cycle.keep_alive = False
            self._last = cycle

    def shutdown(self) -> None:
        """Close an idle connection, and any other after an answer with `Connection: close`.

        Uvicorn's own method also closes after an answer that has begun without the field.
        """
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            self.transport.close()
        else:
            self.drain()
            self.timeout_keep_alive = LAST_MOMENT_SECONDS


class DrainingServer(Server):
    """Uvicorn's server, which after SIGTERM goes through the states of the table above."""

    def __init__(
        self,
        config: Config,
        drain_seconds: float,
        stopped: MutableSequence[int] | mmap,
        on_started: Callable[[], None],
    ) -> None:
        """`on_started` is called once the server accepts. `stopped[0]` becomes 1 once it has shut down in order.

        The exit status does not tell that: uvicorn then ends by the signal that it was sent.
        """
        super().__init__(config)
        self._drain_seconds, self._stopped, self._on_started = drain_seconds, stopped, on_started
        self._accepts_until = 0.0  # on the monotonic clock, once the server drains

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, and stop accepting: after DRAIN_SECONDS on SIGTERM, at once on SIGINT and SIGQUIT.

        Gunicorn may send SIGTERM again each second: only the first SIGTERM counts.
        """
        if sig != signal.SIGTERM:
            self._accepts_until = 0.0
        elif not readiness.draining:
            self._accepts_until = time.monotonic() + self._drain_seconds
        readiness.draining = True
        for connection in self.server_state.connections:
            if isinstance(connection, DrainingProtocol):
                connection.drain()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._stopped[0] = 1

    async def on_tick(self, counter: int) -> bool:
        """Whether uvicorn is to shut down now; called ten times a second. Closes the listening sockets before."""
        now = time.monotonic()
        if not await super().on_tick(counter) or now < self._accepts_until:
            return False
        for server in self.servers:
            server.close()
        return not self.server_state.connections or now >= self._accepts_until + LAST_MOMENT_SECONDS
