"""Clients that ask for a URL again and again: `python -m ops.tools.lab.reader URL CLIENTS PACE HEADERS`.

Each of the CLIENTS reads PACE bytes a second, or as fast as it can if PACE is 0, until the process is killed. A line
on stdout says that the first bytes have come. HEADERS are lines with their ends.
"""

import random
import socket
import sys
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

READ_BYTES = 256 * 1024
BUFFER_BYTES = 4096  # of a slow client's receive buffer, where the system keeps bytes that are not read yet
PAUSE_SECONDS = 0.5  # on average, between two reads of a client with a pace
AGAIN_SECONDS = 0.05  # after an answer, and after a refusal

begun = threading.Event()


def ask(address: tuple[str, int], request: bytes, pace: int) -> None:
    """Send the request, and read until the server has closed the connection."""
    with socket.socket() as connection:
        if pace:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        connection.connect(address)
        connection.sendall(request)
        while connection.recv(int(pace * PAUSE_SECONDS) or READ_BYTES):
            begun.set()
            if pace:
                time.sleep(2 * PAUSE_SECONDS * random.random())  # noqa: S311  not all of them at once


def main(url: str, clients: int, pace: int, headers: str) -> None:
    """Start the clients, print a line when the first has received bytes, and never return."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n{headers}\r\n".encode()

    def again() -> None:
        while True:
            with suppress(OSError):
                ask((parts.hostname or "", parts.port or 80), request, pace)
            time.sleep(AGAIN_SECONDS)

    for _ in range(clients):
        threading.Thread(target=again, daemon=True).start()
    begun.wait()
    print("begun", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
