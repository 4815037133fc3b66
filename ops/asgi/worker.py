"""The gunicorn worker that runs the ASGI application on uvicorn."""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

# Seconds that stay of gunicorn's patience, for the lifespan's shutdown once the last request has ended.
SHUTDOWN_RESERVE = 3


class Worker(UvicornWorker):  # type: ignore[misc]  # untyped: it ships no py.typed
    """Uvicorn with its C parts, and with an end to its patience when it stops."""

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
