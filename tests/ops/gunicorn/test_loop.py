"""A burst of connections is shared by the workers that listen on one socket."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from ops.gunicorn.loop import new_event_loop

BURST = 40
DEADLINE = 10.0


class Worker:
    """An event loop in a thread, which notes what it accepts."""

    def __init__(self, listener: socket.socket, everything: threading.Semaphore) -> None:
        self.accepted = 0
        self.everything = everything
        self.loop = new_event_loop()
        self.stop = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=[self.serve(listener)])

    async def serve(self, listener: socket.socket) -> None:
        server = await self.loop.create_server(self.protocol, sock=listener.dup())
        await self.stop.wait()
        server.close()
        await server.wait_closed()

    def protocol(self) -> asyncio.Protocol:
        self.accepted += 1
        self.everything.release()
        return asyncio.Protocol()


@contextmanager
def two_workers() -> Iterator[tuple[socket.socket, list[Worker], threading.Semaphore]]:
    everything = threading.Semaphore(0)
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        workers = [Worker(listener, everything) for _ in range(2)]
        for worker in workers:
            worker.thread.start()
        try:
            yield listener, workers, everything
        finally:
            for worker in workers:
                worker.loop.call_soon_threadsafe(worker.stop.set)
                worker.thread.join(DEADLINE)
                worker.loop.close()


def test_a_burst_is_shared() -> None:
    with two_workers() as (listener, workers, everything), ExitStack() as clients:
        for _ in range(BURST):
            clients.enter_context(socket.create_connection(listener.getsockname(), DEADLINE))
        for _ in range(BURST):
            assert everything.acquire(timeout=DEADLINE)
        assert min(worker.accepted for worker in workers) > 0  # how many each takes is the scheduler's to say


def test_a_connection_accepted_just_before_the_end_hears_of_it() -> None:
    """Uvicorn tells those that exist when it stops. This one comes to exist after that."""
    loop = new_event_loop()
    lost = asyncio.Event()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def shutdown(self) -> None:
            self.transport.close()

        def connection_lost(self, error: Exception | None) -> None:
            lost.set()

    async def stop_while_it_connects(listener: socket.socket) -> None:
        server = await loop.create_server(Protocol, sock=listener)
        server._accept()
        server.close()
        await asyncio.wait_for(lost.wait(), DEADLINE)

    with ExitStack() as stack:
        stack.enter_context(closing(loop))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        stack.enter_context(socket.create_connection(listener.getsockname(), DEADLINE))
        loop.run_until_complete(stop_while_it_connects(listener))
