"""One application with its page cache on one event loop, behind two sockets: one with the wire, one without.

Both answer from the very same entries, so that their answers differ in nothing but what the wire gets wrong.
"""

import asyncio
import re
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

import uvicorn
import uvloop
from django.conf import settings
from django.test import override_settings
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.cache import lookup
from api.cache.layer import PageCache
from api.cache.lookup import Lookup
from api.cache.rendering import render
from api.cache.shared import Shared
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.security import SecurityHeaders
from ops.asgi.telemetry import Telemetry
from ops.asgi.types import Application
from ops.gunicorn import wire
from ops.gunicorn.edge import EdgeProtocol
from ops.gunicorn.worker import Worker
from ops.redis.client import open_client
from tests.ops.asgi.pages import POLICY, zoo
from tests.ops.asgi.views import DEADLINE

# Ends a connection in an orderly way, whatever was on it; nothing of Django's is asked.
GOODBYE = b"GET /goodbye HTTP/1.1\r\nHost: goodbye.invalid\r\nConnection: close\r\n\r\n"
TIMES = re.compile(
    rb"(?<=\r\ndate: )[^\r]+|(?<=\r\nage: )\d+|(?<=; ttl=)\d+"
    rb"|(?<=\r\nx-request-id: )[0-9a-f]{32}(?=\r)|(?<=\r\nx-request-duration: )[\d.]+|(?<=;dur=)[\d.]+"
)

Counts = Counter[tuple[str, str]]


class Server(uvicorn.Server):
    """One of the two, and a client of it that sends bytes as they are."""

    def __init__(self, application: Any, http: Any, options: dict[str, Any]) -> None:
        own = {"lifespan": "off", "log_config": None, "http": http}
        super().__init__(uvicorn.Config(application, **Worker.CONFIG_KWARGS | own | options))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.loop: asyncio.AbstractEventLoop

    def run_there(self, work: Awaitable[Any]) -> Any:
        """Await something in the loop of the server."""

        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE)

    async def read(self) -> None:
        """Until the server has read what was sent: in the loop's first iteration, if the kernel has it."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Until the requests of what was sent, too, have left the application or wait for more."""
        await self.read()
        while self.server_state.tasks and not any(map(_is_waiting, self.server_state.connections)):
            await asyncio.wait(self.server_state.tasks)
            await asyncio.sleep(0)

    def connect(self) -> socket.socket:
        connection = socket.create_connection(self.address, DEADLINE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def exchange(self, segments: Sequence[bytes]) -> tuple[bytes, Counts]:
        """The answers to segments that arrive one by one, without times, and how the cache has counted them."""
        before = POLICY.counts.copy()
        with self.connect() as connection:
            with suppress(OSError):  # the server may close in between
                for segment in (*segments, GOODBYE):
                    connection.sendall(segment)
                    self.run_there(self.settle())
                connection.shutdown(socket.SHUT_WR)  # should it still wait for something
            answers = read_all(connection)
        return TIMES.sub(b"", answers), POLICY.counts - before


def _is_waiting(protocol: Any) -> bool:
    """Whether a request waits for the rest of its content."""
    cycle: RequestResponseCycle | None = protocol.cycle
    return cycle is not None and cycle.more_body and not cycle.response_complete


def read_all(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    answers = bytearray()
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            answers += data
    return bytes(answers)


def read_one(answers: BinaryIO) -> bytes:
    """The next answer, one with content; its head."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = answers.readline()
        assert line, "the server has closed"
        head += line
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
    assert len(answers.read(length)) == length
    return head


Around = Callable[[Application], Application]


def within(pages: Application) -> Application:
    """The layers within the outermost."""
    return Telemetry(AllowedHosts(Head(pages)))


def plain(pages: Application) -> Application:
    return SecurityHeaders(within(pages))


class Twins:
    def __init__(self, around: Around = plain, **options: Any) -> None:
        """`around` puts layers around the page cache; `options` are uvicorn's."""
        self.pages = PageCache(zoo)
        self.learns = True  # whether the wire gets to know further targets
        memory, learn = self.pages._memory, self.pages._memory.learn
        memory.learn = lambda *hit: learn(*hit) if self.learns else None  # type: ignore[method-assign]
        application = around(self.pages)
        self.wire = Server(application, "ops.gunicorn.wire:WireProtocol", options)
        self.layer = Server(application, EdgeProtocol, options)
        self.open = threading.Event()
        self.errors: list[dict[str, Any]] = []  # what the event loop had to complain of

    async def serve(self) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.errors.append(context))
        async with open_client() as client:
            # As PageCache.open_tiers, but for the subscription, on whose loss the worker forgets everything.
            self.pages.lookup = Lookup(
                partial(render, self.pages.application),
                self.pages._memory,
                Shared(client, settings.CACHE_PREFIX, "release"),
            )
            for server in self.wire, self.layer:
                server.loop = asyncio.get_running_loop()
            self.open.set()
            await asyncio.gather(*(server.serve([server.socket]) for server in (self.wire, self.layer)))
            await self.pages.lookup.close()

    def warm(self, *targets: bytes) -> None:
        """Have the wire know these targets, and no others.

        One request computes the entry, one finds it, and one is answered by the wire.
        """
        for target in targets:
            counts: Counts = Counter()
            for _ in range(3):
                _, counts = self.wire.exchange([b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target])
            assert counts == {("hit", "wire"): 1}, (target, counts)
        self.learns = False


@contextmanager
def twins(around: Around = plain, **options: Any) -> Iterator[Twins]:
    """The servers; what they have in memory stays trusted for as long as they run. One pair at a time."""
    assert not wire.ready
    pair = Twins(around, **options)
    with override_settings(ROOT_URLCONF="tests.ops.asgi.pages", CACHE_PREFIX=f"twins-{id(pair)}"):
        trust, lookup.TRUST_SECONDS = lookup.TRUST_SECONDS, 7200.0
        thread = threading.Thread(target=uvloop.run, args=[pair.serve()])
        thread.start()
        try:
            assert pair.open.wait(DEADLINE)
            yield pair
        finally:
            pair.wire.should_exit = pair.layer.should_exit = True
            thread.join(DEADLINE)
            lookup.TRUST_SECONDS = trust
            wire.ready.clear()
    assert not thread.is_alive()
    assert not pair.errors, pair.errors
