"""Serves /metrics: `python -m ops.gunicorn.exporter PARENT`, a process that ops/gunicorn/arbiter.py starts.

Merging the workers' files takes milliseconds, which no serving loop should spend. The process ends with gunicorn's
arbiter: its standard input is a pipe that the arbiter holds open. Its parent is a shell that starts it again if it
fails; on Linux, the kernel kills it when that shell dies.
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

from ops.machine import addresses
from ops.telemetry.recorder import DIRECTORY

logger = logging.getLogger("ops.gunicorn.exporter")

SCRAPE_SECONDS = 5.0  # seconds for a scrape, from its first byte to its last
MAX_CONNECTIONS = 8  # at once; the next one is closed
MAX_HEAD_BYTES = 8192  # bytes of a request's head
# Seconds for which one merge answers scrapes: the files change once a second, and a merge takes 15 ms of a core.
FRESH_SECONDS = 1.0
RETRY_SECONDS = 5.0  # seconds until a port that is in use is tried again
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


class Exporter:
    def __init__(self, directory: Path) -> None:
        self.registry = CollectorRegistry()
        MultiProcessCollector(self.registry, str(directory))
        self._connections = 0
        self._merged, self._merged_at, self._fresh_until = b"", "", 0.0

    async def serve(self, host: str, port: int) -> None:
        """Serve until cancelled. While the port is in use, try it again, with one line in the log for all tries."""
        said = False
        while True:
            try:
                server = await asyncio.start_server(
                    self.handle_connection, addresses.both(host), port, limit=MAX_HEAD_BYTES
                )
            except OSError as error:
                if not said:
                    reason = error.strerror or error
                    logger.error("No metrics: METRICS_PORT %s cannot be used on %s: %s", port, host, reason)  # noqa: TRY400
                    said = True
                await asyncio.sleep(RETRY_SECONDS)
            else:
                logger.info("Metrics at http://%s/metrics", addresses.written(host, port))
                await server.serve_forever()

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= MAX_CONNECTIONS:
                writer.transport.set_write_buffer_limits(0)  # so that drain waits for the last byte
                async with asyncio.timeout(SCRAPE_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self.response(head))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()
        finally:
            writer.close()
            self._connections -= 1

    def response(self, head: bytes) -> bytes:
        """Return the bytes of HTTP/1.1 that answer a request with this head. Each answer closes the connection.

        200 with the metrics of all workers, at most FRESH_SECONDS old, and the `Date` of their merge; 404 for another
        path, 405 for another method than GET and HEAD, 500 if the metrics cannot be collected. HEAD gets no body.
        """
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        status, fields = b"200 OK", b""
        if path != b"/metrics":
            status, body = b"404 Not Found", b"Only /metrics is here.\n"
        elif method not in {b"GET", b"HEAD"}:
            status, body, fields = b"405 Method Not Allowed", b"Only GET and HEAD.\n", b"allow: GET, HEAD\r\n"
        else:
            try:
                if time.monotonic() >= self._fresh_until:
                    self._merged = generate_latest(self.registry)
                    self._merged_at = formatdate(usegmt=True)
                    self._fresh_until = time.monotonic() + FRESH_SECONDS
                body = self._merged
                fields = f"content-type: {CONTENT_TYPE_LATEST}\r\ndate: {self._merged_at}\r\n".encode()
            except Exception:
                logger.exception("The metrics cannot be collected")
                status, body = b"500 Internal Server Error", b"The log says why.\n"
        lines = b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n%b\r\n" % (
            status,
            len(body),
            fields,
        )
        return lines if method == b"HEAD" else lines + body


# Have the kernel (Linux) kill this process when its parent dies; exit now if the parent is no longer `parent`.
def die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("The process that started this one has gone")


async def main() -> None:
    serving = asyncio.ensure_future(
        Exporter(Path(os.environ[DIRECTORY])).serve(settings.METRICS_HOST, settings.METRICS_PORT)
    )
    # nothing is ever sent: readable means closed
    asyncio.get_running_loop().add_reader(sys.stdin, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    # Ctrl-C reaches this process, too, but only the arbiter acts on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(int(sys.argv[1]))
    logging.config.dictConfig(settings.LOGGING)
    asyncio.run(main())
