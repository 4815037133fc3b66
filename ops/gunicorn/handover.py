"""Decides which of two releases on one port (REUSE_PORT=1) gets new connections.

Each release listens on a socket of its own, with SO_REUSEPORT, and so has a queue of its own in the kernel, which
spreads connections over the sockets of a port. When a socket is closed, connections in its queue, or in the middle of
their handshake, are reset. So before a release closes its socket, it has the kernel send it nothing new, and empties
its queue. docs/decisions/0033-handover.md has the figures.

| when | new connections go to |
| --- | --- |
| the second release starts | the first: the second is bound, and does not listen yet |
| a worker of the second is ready, and listens | the second |
| the first stops | the second |
| the second stops instead, while the first is there | the first |

The kernel numbers the sockets of a port from 0, in the order in which they began to listen. If one of two closes, the
other is number 0. A third release is refused until one of two has gone: its number would change without notice.
"""

import ctypes
import errno
import logging
import os
import socket
import struct
import sys
from itertools import islice
from pathlib import Path

logger = logging.getLogger(__name__)

# Seconds for which a release still accepts after the kernel sends it nothing new, since handshakes have begun: the
# first repetition of a packet that was lost comes after a second (RFC 6298).
HANDSHAKE_SECONDS = 1.5

SO_ATTACH_REUSEPORT_CBPF = 51  # socket(7); asm-generic/socket.h
RETURN_CONSTANT = 0x06  # BPF_RET | BPF_K
LISTENING = "0A"  # TCP_LISTEN in proc(5)'s /proc/net/tcp
TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


class Handover:
    """A release's place among the releases at one address."""

    def __init__(self, listener: socket.socket) -> None:
        """`listener` is bound, and does not listen yet. Raises OSError, EADDRINUSE, if two releases listen there."""
        self._listener = listener
        self._elders = _listeners_beside(listener)
        if len(self._elders) > 1:
            raise OSError(errno.EADDRINUSE, "two releases listen there: one has to end first")

    def has_elder(self) -> bool:
        """Whether a release that was there before this one still listens."""
        return not self._elders.isdisjoint(_listeners_beside(self._listener))

    def take_over(self) -> bool:
        """Take all new connections from the older release; returns whether there is one. Call it after listen()."""
        if has_elder := self.has_elder():
            _send_all_to(self._listener, 1)
        return has_elder

    def leave(self) -> None:
        """Leave new connections to the other release, if there is one. Call it before the socket is closed."""
        _send_all_to(self._listener, 0 if self.has_elder() else 1)


def _send_all_to(listener: socket.socket, number: int) -> None:
    """Have the kernel give new connections of the port to the socket with this number.

    If there is no such socket, the kernel keeps spreading them by their addresses (reuseport_select_sock).
    """
    program = ctypes.create_string_buffer(struct.pack("=HBBI", RETURN_CONSTANT, 0, 0, number))
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, struct.pack("HP", 1, ctypes.addressof(program))
        )
    except OSError as error:
        logger.warning("Connections may be lost when one of two releases stops: %s", error)


def _listeners_beside(listener: socket.socket) -> set[str]:
    """Return the inodes of the other sockets that listen at the address of `listener`."""
    host, port = listener.getsockname()[:2]
    packed = socket.inet_pton(listener.family, host)
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    address = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words) + f":{port:04X}"
    inodes = set()
    with TABLES[listener.family].open() as table:
        for row in islice(table, 1, None):
            fields = row.split()
            if fields[3] != LISTENING:  # listening sockets come first; connections, which may be many, follow
                break
            if fields[1] == address:
                inodes.add(fields[9])
    return inodes - {str(os.fstat(listener.fileno()).st_ino)}
