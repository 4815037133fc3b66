"""An ASGI application behind a real socket: uvicorn on a loop of its own in a thread of the test's process.

In the same process, so that a test can count the tasks and threads that a request takes.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop

from ops.asgi.hits import always
from ops.asgi.types import Application, Receive, Scope, Send
from ops.gunicorn.worker import Worker
from tests.ops.asgi.views import DEADLINE


class Serving:
    """A running server; what it counts is counted while a request is in the application."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.ended = threading.Semaphore(0)  # released once per request that has left the application
        self.errors: list[BaseException] = []
        self.tasks = self.hops = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.address[1]}", timeout=DEADLINE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._count_task)
        try:
            await self.application(scope, receive, send)
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            loop.set_task_factory(None)
            self.ended.release()

    admits = always

    def _count_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        self.tasks += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    def wait_until_ended(self, requests: int = 1) -> None:
        for _ in range(requests):
            assert self.ended.acquire(timeout=DEADLINE), "the request has not left the application"

    def get(self, path: str) -> httpx.Response:
        """Answer a GET whose request has left the application."""
        response = self.client.get(path)
        self.wait_until_ended()
        return response

    def send(self, request: bytes) -> socket.socket:
        """Send `request` as it is, over a connection of its own."""
        connection = socket.create_connection(self.address, timeout=DEADLINE)
        connection.sendall(request)
        return connection


class QuickServer(uvicorn.Server):
    """Looks every 2 ms instead of every 100 whether it is to end: 250 tests wait for that."""

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks // 50):
            ticks += 1
            await asyncio.sleep(0.002)


@contextmanager
def serve(
    application: Application, monkeypatch: pytest.MonkeyPatch, lifespan: str = "off"
) -> Iterator[Serving]:
    serving = Serving(application)
    submit = ThreadPoolExecutor.submit

    def count_hop(*args: Any, **options: Any) -> Any:
        serving.hops += 1
        return submit(*args, **options)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", count_hop)
    config = uvicorn.Config(serving, **Worker.CONFIG_KWARGS | {"lifespan": lifespan, "log_config": None})
    server = QuickServer(config)
    thread = threading.Thread(target=uvloop.run, args=[server.serve([serving.socket])])
    thread.start()
    try:
        with serving.client:
            yield serving
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        serving.socket.close()
    assert not thread.is_alive()
