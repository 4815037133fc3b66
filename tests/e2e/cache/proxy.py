"""A network that fails on demand: TCP proxies that delay, hold, swallow, cut, refuse and ignore.

They run in a process of their own (`python -m tests.e2e.cache.proxy`), which takes its orders from stdin: in the
test's, they would be late by whatever the test's thread takes.
"""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import uvloop

from tests.service import ROOT

PASS, SWALLOW, CUT = "pass", "swallow", "cut"
OPEN, REFUSING, IGNORING = "open", "refusing", "ignoring"


@dataclass(frozen=True)
class Weather:
    """How a way fares. `subscriptions` is for connections that have sent Redis's SUBSCRIBE, `commands` for others."""

    door: str = OPEN  # ignoring: a client that connects waits for ever
    commands: str = PASS  # swallow: everything that is sent is lost silently
    subscriptions: str = PASS
    delay: float = 0.0  # seconds, of each reply
    held: bool = False  # replies stay under way until they are not


class Link:
    """A connection through a proxy."""

    def __init__(self, proxy: "Proxy", client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._subscribes = self._has_lost = False

    @property
    def fate(self) -> str:
        if self._has_lost:  # TCP delivers all that was sent, or nothing any more
            return SWALLOW
        weather = self._proxy.weather
        return weather.subscriptions if self._subscribes else weather.commands

    def cut(self) -> None:
        self._client.close()
        self._server.close()

    async def carry_up(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, RuntimeError):  # uvloop's, where the other side is closed
            while data := await reader.read(65536):
                self._subscribes = self._subscribes or b"\r\nSUBSCRIBE\r\n" in data
                await self._pass(data, self._server)
        self.cut()

    async def carry_down(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError, RuntimeError):
            while data := await reader.read(65536):
                await asyncio.sleep(self._proxy.weather.delay)
                await self._proxy.flowing.wait()
                await self._pass(data, self._client)
        self.cut()

    async def _pass(self, data: bytes, to: asyncio.StreamWriter) -> None:
        if self.fate == PASS:
            to.write(data)
            await to.drain()
        elif self.fate == CUT:
            self.cut()
        else:
            self._has_lost = True


class Proxy:
    """From a TCP port to a unix socket."""

    def __init__(self, upstream: str) -> None:
        self.weather = Weather()
        self.flowing = asyncio.Event()
        self._upstream = upstream
        self._links: set[Link] = set()
        self._server: asyncio.Server | None = None
        self._fillers: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    async def turn(self, weather: Weather) -> None:
        """Let the weather take effect, also on the connections that there are."""
        if self._server is None or weather.door != self.weather.door:
            self._close()
            await self._reopen(weather.door)
        self.weather = weather
        (self.flowing.clear if weather.held else self.flowing.set)()
        for link in self._links:
            if weather.door == REFUSING or link.fate == CUT:
                link.cut()

    def _close(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers = []
        if self._server:
            self._server.close()
            self._server = None
        self._socket.close()

    async def _reopen(self, door: str) -> None:
        """Take the same port; bound, no other process gets it."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        if door == OPEN:
            self._server = await asyncio.start_server(self._accept, sock=self._socket, backlog=1024)
        elif door == IGNORING:
            self._socket.listen(0)
            for _ in range(4):  # once its queue is full, Linux drops new connections
                filler = socket.socket()
                filler.settimeout(0)
                filler.connect_ex(("127.0.0.1", self.port))
                self._fillers.append(filler)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            writer.transport.abort()
            return
        link = Link(self, writer, up_writer)
        self._links.add(link)
        await asyncio.gather(link.carry_up(reader), link.carry_down(up_reader))
        self._links.discard(link)


async def serve() -> None:
    """Follow the lines of stdin: [None, path] opens a proxy, [number, weather] turns one."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    proxies: list[Proxy] = []
    while line := await lines.readline():
        number, order = json.loads(line)
        if number is None:
            number = len(proxies)
            proxies.append(Proxy(order))
            order = {}
        await proxies[number].turn(Weather(**order))
        print(json.dumps([number, proxies[number].port]), flush=True)  # noqa: T201  the reply


# --- In the test's process ------------------------------------------------------------------------


@dataclass
class Way:
    """One of the proxies, as the test sees it."""

    network: "Network"
    number: int
    port: int
    weather: Weather = field(default_factory=Weather)

    def turn(self, **changes: object) -> None:
        """Change its weather; it has changed when this returns."""
        self._set(replace(self.weather, **changes))  # type: ignore[arg-type]

    def clear(self) -> None:
        """As good as new; connections that were cut stay cut."""
        self._set(Weather())

    def _set(self, weather: Weather) -> None:
        self.weather = weather
        self.network.order(self.number, asdict(weather))


class Network:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def way(self, upstream: Path) -> Way:
        """A new way to a unix socket."""
        return Way(self, *self.order(None, str(upstream)))

    def order(self, number: int | None, order: object) -> tuple[int, int]:
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([number, order]), file=self._process.stdin, flush=True)
        number, port = json.loads(self._process.stdout.readline())
        return number, port


@contextmanager
def network() -> Iterator[Network]:
    command = [sys.executable, "-m", "tests.e2e.cache.proxy"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Network(process)
        process.communicate()  # the end of its input is its end


if __name__ == "__main__":
    uvloop.run(serve())
