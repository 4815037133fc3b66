"""The gunicorn worker that runs the ASGI application on uvicorn."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import MutableSequence
from mmap import mmap
from typing import Any, ClassVar

from django.conf import settings
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from ops.asgi.hits import undeclared_layer
from ops.gunicorn import outgrown
from ops.gunicorn.draining import DrainingServer

logger = logging.getLogger(__name__)

# Seconds of gunicorn's patience that are left for the lifespan's shutdown after the last request has ended.
SHUTDOWN_RESERVE_SECONDS = 3
ARBITER_SECONDS = 1.0  # between two checks that gunicorn's first process is there


class Worker(UvicornWorker):  # type: ignore[misc]  # untyped: it ships no py.typed
    """Runs uvicorn with its C parts, and limits the time that it takes to stop."""

    drain_seconds, memory_limit = 0.0, 0  # gunicorn.conf.py sets them, in seconds and bytes
    # Its byte is 1 once the worker has stopped in order (ops/gunicorn/arbiter.py).
    stopped: MutableSequence[int] | mmap = bytearray(1)
    outgrown: MutableSequence[int] | mmap = bytearray(1)  # ops/gunicorn/outgrown.py

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "ops.gunicorn.loop:new_event_loop",
        "http": "ops.gunicorn.wire:WireProtocol",
        "ws": "none",  # an upgrade request is answered as a plain one
        "interface": "asgi3",
        "lifespan": "on",  # a worker whose start-up fails must not serve
        # A pipelined request starts inside the context of the one before it (python/cpython#140947): its sync code
        # would run in the thread of that earlier request, which ends, and its database connection with it.
        "reset_contextvars": True,
        "proxy_headers": False,  # any client can write X-Forwarded-For
        "server_header": False,
        "access_log": False,  # at these rates a line for each request costs more than the request
        # Seconds between signs of life to gunicorn. Uvicorn gives none while it drains, so the last one must
        # be recent; uvicorn-worker's choice, half of gunicorn's timeout, would halve the time left to drain.
        "timeout_notify": 1,
    }

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        # uvicorn-worker leaves this at "for ever": gunicorn would kill the worker, its requests and its
        # lifespan unfinished, after graceful_timeout on a stop and after timeout on a reload.
        patience = min(self.cfg.graceful_timeout, self.cfg.timeout or self.cfg.graceful_timeout)
        self.config.timeout_graceful_shutdown = max(1, patience - SHUTDOWN_RESERVE_SECONDS)

    def run(self) -> None:
        handovers = (getattr(listener, "handover", None) for listener in self.sockets)
        self._handovers = [handover for handover in handovers if handover]
        # uvloop closes a socket itself. Given gunicorn's wrappers, it closes their files, and uvicorn does so again.
        self.sockets: list[Any] = [listener.sock for listener in self.sockets]
        super().run()

    async def _serve(self) -> None:
        """As uvicorn-worker's, with a server that drains, and that acts on SIGQUIT, gunicorn's quick stop."""
        self.config.app = self.wsgi
        if settings.configured:
            logger.info("RUNTIME=%s", settings.RUNTIME)
        has_wire = settings.configured and settings.RUNTIME == "lean" and settings.PAGE_CACHE == "on"
        if has_wire and (layer := undeclared_layer(self.wsgi)):
            logger.warning("%s does not say what it does to a cached answer: none skips the layers", layer)
        server = DrainingServer(self.config, self.drain_seconds, self.stopped, self._take_over)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGQUIT, server.handle_exit, signal.SIGQUIT, None)
        watching = [
            loop.create_task(outgrown.watch(self.memory_limit, self.outgrown, self.ppid)),
            loop.create_task(self._watch_arbiter(server)),
        ]
        try:
            await server.serve(sockets=self.sockets)
        finally:
            for task in watching:
                task.cancel()
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    async def _watch_arbiter(self, server: DrainingServer) -> None:
        """Stop once gunicorn's first process was killed: nothing else would end this worker, which keeps the port."""
        while os.getppid() == self.ppid:  # noqa: ASYNC110  no event tells of it
            await asyncio.sleep(ARBITER_SECONDS)
        logger.error("Gunicorn's first process is gone: this worker stops")
        server.handle_exit(signal.SIGTERM, None)

    def _take_over(self) -> None:
        if [handover for handover in self._handovers if handover.take_over()]:
            logger.info("New connections come to this release: the one before it may be stopped")


class StockWorker(Worker):
    """RUNTIME=stock: uvicorn's own protocol on uvloop's own server, without limits and deadlines for clients."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {**Worker.CONFIG_KWARGS, "loop": "uvloop", "http": "httptools"}
