"""The outgoing HTTP connections of an event loop: one pool for all upstreams, and the state of each of them.

A worker opens it with its other resources. Anywhere else, in a test, a command or a shell, a call has one for itself.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from ops.breaker import Breaker
from ops.project import NAME, VERSION

# Calls to one upstream that are under way at a time, and so its connections. One more is refused at once: by Little's
# law, 32 calls that take 250 ms each are 128 a second in each worker.
MAX_IN_FLIGHT = 32
IDLE_SECONDS = 15.0  # until an idle connection is closed: before most servers and balancers do so
DNS_SECONDS = 10.0  # that an address is used without asking again: an upstream may move
# Between two probes of an upstream whose breaker is open: it is somebody's, and each worker probes it.
PROBE_SECONDS = 1.0

FIELDS = {
    "User-Agent": f"{NAME}/{VERSION}",
    "Accept-Encoding": "identity",  # a small answer can be no bomb
}


class State:
    """An upstream, as this loop knows it."""

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        self.breaker = Breaker(name, probe, probe_seconds=PROBE_SECONDS, min_probes=1)
        self.in_flight = 0
        self.not_before = 0.0  # it has asked for no calls until then, on the loop's clock


class Client:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # each upstream has its own, MAX_IN_FLIGHT: two on one host do not wait for each other
                limit_per_host=0,
                keepalive_timeout=IDLE_SECONDS,
                ttl_dns_cache=int(DNS_SECONDS),
            ),
            headers=FIELDS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # a call has one deadline, for all
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,  # no proxy, and no password of a ~/.netrc
        )
        self.states: dict[str, State] = {}  # by the upstream's name

    async def close(self) -> None:
        for state in self.states.values():
            await state.breaker.close()
        await self.session.close()


# The open clients, each by the loop that it belongs to.
clients: dict[asyncio.AbstractEventLoop, Client] = {}


@asynccontextmanager
async def open_client() -> AsyncIterator[Client]:
    """A client for one call."""
    client = Client()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def open_connections() -> AsyncIterator[None]:
    """A client for the running loop: for the lifespan of a worker. It connects at the first call."""
    loop = asyncio.get_running_loop()
    async with open_client() as client:
        clients[loop] = client
        try:
            yield
        finally:
            del clients[loop]
