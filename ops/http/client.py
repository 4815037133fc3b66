"""The outgoing HTTP connections of an event loop: one pool for all upstreams, and the state of each upstream.

A worker opens the pool with its other resources. Elsewhere, in a test, a command or a shell, each call opens its own.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp

from ops.breaker import Breaker
from ops.project import NAME, VERSION

# Calls to one upstream that may be under way at once, and so its connections. A further call is refused at once. By
# Little's law, 32 calls that take 250 ms each are 128 a second in each worker.
MAX_IN_FLIGHT = 32
IDLE_SECONDS = 15.0  # seconds until an idle connection is closed, before most servers and balancers close it
DNS_SECONDS = 10.0  # seconds until a name is looked up again, since an upstream may move
# Seconds between two probes of an upstream while its breaker is open: each worker sends these to a foreign service.
PROBE_SECONDS = 1.0

FIELDS = {
    "User-Agent": f"{NAME}/{VERSION}",
    "Accept-Encoding": "identity",  # no small answer can expand to a large one
}


class State:
    """An upstream, as one event loop knows it."""

    def __init__(self, name: str, probe: Callable[[], Awaitable[None]]) -> None:
        self.breaker = Breaker(name, probe, probe_seconds=PROBE_SECONDS, min_probes=1)
        self.in_flight = 0
        self.not_before = 0.0  # until then, on the loop's clock, it has asked for no calls


class Client:
    """The pool of connections of one event loop, and the states of its upstreams."""

    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # MAX_IN_FLIGHT limits each upstream: two on one host do not wait for each other
                limit_per_host=0,
                keepalive_timeout=IDLE_SECONDS,
                ttl_dns_cache=int(DNS_SECONDS),
            ),
            headers=FIELDS,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # one deadline covers all of a call
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
    """Open a client, and close it at the end of the block."""
    client = Client()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def open_connections() -> AsyncIterator[None]:
    """Open the client for all calls of the running loop, for a worker's lifespan. It connects at the first call."""
    loop = asyncio.get_running_loop()
    async with open_client() as client:
        clients[loop] = client
        try:
            yield
        finally:
            del clients[loop]
