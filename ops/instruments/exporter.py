"""Serves /metrics: `python -m ops.instruments.exporter PARENT`, a process that ops/instruments/arbiter.py starts.

Merging the workers' files takes milliseconds, which no serving loop should spend. The process dies with its parent,
whatever becomes of that: it reads the pipe that its parent holds open, and Linux kills it besides.
"""

import asyncio
import ctypes
import logging
import logging.config
import os
import signal
import sys
import time
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ops.instruments.recorder import DIRECTORY

logger = logging.getLogger("ops.instruments.exporter")

DEADLINE = 5.0  # seconds for a scrape, from its first byte to its last
MOST_CONNECTIONS = 8  # at once; the next one is closed
LONGEST = 8192  # bytes of a request's head
# Seconds that an answer serves whoever else asks: the files change once a second, and a merge takes 15 ms of a core.
FRESH = 1.0
RETRY = 5.0  # seconds until a port that is in use is tried again
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


class Exporter:
    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        MultiProcessCollector(self.registry, str(directory))
        self._connections = 0
        self._merged, self._merged_at, self._fresh_until = b"", "", 0.0

    async def serve(self, host: str, port: int) -> None:
        """Serve until cancelled. A port that is in use is said once and tried again: the service does without."""
        said = False
        while True:
            try:
                server = await asyncio.start_server(self.answer, host, port, limit=LONGEST)
            except OSError as error:
                if not said:
                    reason = error.strerror or error
                    logger.error("No metrics: METRICS_PORT %s cannot be used on %s: %s", port, host, reason)  # noqa: TRY400
                    said = True
                await asyncio.sleep(RETRY)
            else:
                logger.info("Metrics at http://%s:%s/metrics", host, port)
                await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MOST_CONNECTIONS:
                writer.transport.set_write_buffer_limits(0)  # so that drain waits for the last byte
                async with asyncio.timeout(DEADLINE):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self.response(head))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            writer.close()
            self._connections -= 1

    def response(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response(b"404 Not Found", b"Only /metrics is here.\n")
        if method not in {b"GET", b"HEAD"}:
            return _response(b"405 Method Not Allowed", b"Only GET and HEAD.\n", b"allow: GET, HEAD\r\n")
        try:
            if time.monotonic() >= self._fresh_until:
                self._merge()
        except Exception:
            logger.exception("The metrics cannot be collected")
            return _response(b"500 Internal Server Error", b"The log says why.\n")
        fields = f"content-type: {CONTENT_TYPE_LATEST}\r\ndate: {self._merged_at}\r\n".encode()
        return _response(b"200 OK", self._merged, fields, method)

    def _merge(self) -> None:
        """What the workers' files say."""
        self._merged = generate_latest(self.registry)
        self._merged_at, self._fresh_until = formatdate(usegmt=True), time.monotonic() + FRESH


def _response(status: bytes, body: bytes, headers: bytes = b"", method: bytes = b"GET") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n" % (status, len(body), headers)
    return head if method == b"HEAD" else head + body


def die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The process that started this one has gone")


async def main() -> None:
    serving = asyncio.ensure_future(
        Exporter(Path(os.environ[DIRECTORY])).serve(settings.METRICS_HOST, settings.METRICS_PORT)
    )
    asyncio.get_running_loop().add_reader(sys.stdin, serving.cancel)  # nothing is ever sent: it is the end
    with suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; it is the parent's to stop
    die_with(int(sys.argv[1]))
    logging.config.dictConfig(settings.LOGGING)
    asyncio.run(main())
