"""An HTTP client that costs little: thousands of requests a second beside the services, on two cores."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from typing import NamedTuple, Self

import orjson

from tests.service import PATIENCE

Address = tuple[str, int]


class Answer(NamedTuple):
    """An answer; `began` and `ended` are on the monotonic clock."""

    address: Address
    path: str
    status: int
    fields: dict[bytes, bytes]
    body: bytes
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def how(self) -> str:
        """The value of Cache-Status."""
        return self.fields.get(b"cache-status", b"").decode()

    @property
    def value(self) -> int:
        """The counter of a product's page."""
        return int(orjson.loads(self.body)["demand_qty"])


class Connection:
    """Keeps alive, and connects again if the server has closed it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self.address)
        return self

    async def get(self, path: str) -> Answer:
        return await self.request("GET", path)

    async def request(self, method: str, path: str) -> Answer:
        """Raises OSError or IncompleteReadError if the server goes away."""
        if self._writer is None:
            await self.open()
        assert self._reader
        assert self._writer
        began = time.monotonic()
        length = b"Content-Length: 0\r\n" if method == "POST" else b""
        try:
            self._writer.write(
                b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (method.encode(), path.encode(), length)
            )
            async with asyncio.timeout(PATIENCE):
                status, fields, body = await self._read(self._reader)
        except BaseException:
            self.close()
            raise
        return Answer(self.address, path, status, fields, body, began, time.monotonic())

    async def _read(self, reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
        first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        return int(first.split()[1]), fields, await reader.readexactly(int(fields[b"content-length"]))

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        self._reader = self._writer = None


@asynccontextmanager
async def connections(addresses: Iterable[Address]) -> AsyncIterator[list[Connection]]:
    """One to each address, open."""
    opened = await asyncio.gather(*(Connection(address).open() for address in addresses))
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


async def at_once(addresses: Sequence[Address], path: str, number: int) -> list[Answer]:
    """The answers to so many requests over as many connections, spread over the addresses."""
    async with connections(
        address for address, _ in zip(cycle(addresses), range(number), strict=False)
    ) as many:
        return await asyncio.gather(*(connection.get(path) for connection in many))


class Load:
    """The answers, and the errors of connections."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.errors: list[Exception] = []
        self.running = True

    async def run(self, address: Address, paths: Iterable[str], pause: float) -> None:
        connection = Connection(address)
        for path in cycle(paths):
            if not self.running:
                break
            try:
                self.answers.append(await connection.get(path))
            except (OSError, asyncio.IncompleteReadError) as error:
                self.errors.append(error)
            await asyncio.sleep(pause)
        connection.close()


@asynccontextmanager
async def load(
    addresses: Iterable[Address], paths: Sequence[str], pause: float = 0.005
) -> AsyncIterator[Load]:
    """Ask for the paths, one after another, over a connection to each address, until the block ends."""
    made = Load()
    async with asyncio.TaskGroup() as tasks:
        for address in addresses:
            tasks.create_task(made.run(address, paths, pause))
        try:
            yield made
        finally:
            made.running = False


def tell(line: str) -> None:
    """Print a figure, for runs of the tests with -s."""
    sys.stdout.write(f"{line}\n")
