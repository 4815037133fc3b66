"""The gunicorn worker that runs the ASGI application on uvicorn."""

import asyncio
import signal
import sys
import time
from types import FrameType
from typing import Any, ClassVar

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn import Config, Server
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from ops.instruments.readiness import readiness

# Seconds that stay of gunicorn's patience, for the lifespan's shutdown once the last request has ended.
SHUTDOWN_RESERVE = 3


class DrainingServer(Server):
    """Uvicorn's, which goes on to accept for a while once it was told to stop, and says meanwhile that it will."""

    def __init__(self, config: Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._drained = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM, which gunicorn may send again each second, is patient; SIGINT and SIGQUIT are not."""
        if sig != signal.SIGTERM:
            self._drained = 0.0
        elif not readiness.draining:
            self._drained = time.monotonic() + self._drain_seconds
        readiness.draining = True
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) and time.monotonic() >= self._drained


class Worker(UvicornWorker):  # type: ignore[misc]  # untyped: it ships no py.typed
    """Uvicorn with its C parts, and with an end to its patience when it stops."""

    drain_seconds = 0.0  # gunicorn.conf.py sets it

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "ops.asgi.loop:new_event_loop",
        "http": "ops.asgi.wire:WireProtocol",
        "ws": "none",  # an upgrade request is answered as a plain one
        "interface": "asgi3",
        "lifespan": "on",  # a worker whose start-up fails must not serve
        # A pipelined request starts inside the context of the one before it (python/cpython#140947): its sync
        # code would run in that one's thread, which ends, with the database connection that it holds.
        "reset_contextvars": True,
        "proxy_headers": False,  # any client can write X-Forwarded-For
        "server_header": False,
        "access_log": False,  # at these rates a line for each request costs more than the request
        # Seconds between signs of life to gunicorn. Uvicorn gives none while it drains, so the last one must
        # be recent; uvicorn-worker's choice, half of gunicorn's timeout, would halve what is left to drain.
        "timeout_notify": 1,
    }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn-worker leaves this at "for ever": gunicorn would kill the worker, its requests and its
        # lifespan unfinished, after graceful_timeout on a stop and after timeout on a reload.
        patience = min(self.cfg.graceful_timeout, self.cfg.timeout or self.cfg.graceful_timeout)
        self.config.timeout_graceful_shutdown = max(1, patience - SHUTDOWN_RESERVE)

    def run(self) -> None:
        # A socket is uvloop's own to close. Of gunicorn's wrappers it closes the file, and uvicorn tries again.
        self.sockets: list[Any] = [listener.sock for listener in self.sockets]
        super().run()

    async def _serve(self) -> None:
        """As uvicorn-worker's, with a server that drains, and that hears SIGQUIT, gunicorn's quick stop."""
        self.config.app = self.wsgi
        server = DrainingServer(self.config, self.drain_seconds)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
