"""Gunicorn's listening sockets: of IPv4 and of IPv6 at the same port, and shared with another release.

One socket could serve both families, but not on every machine (`net.ipv6.bindv6only`), and it names a client of IPv4
::ffff:192.0.2.1, which a search for 192.0.2.1 does not find.

Gunicorn's own `reuse_port` gives each worker a socket: connections in the queue of a worker that dies, or that a
reload replaces, are lost. Here all workers of a release share a socket, as without REUSE_PORT
(ops/gunicorn/handover.py).
"""

import socket
from typing import Any

from gunicorn import sock, util  # type: ignore[import-untyped]

from ops.gunicorn.handover import Handover


class _Shared(sock.BaseSocket):  # type: ignore[misc]  # gunicorn has no types
    """A socket at an address where another release may listen, too."""

    reuse_port = False
    handover: Handover | None = None  # None for a socket that was passed on, not bound here

    def set_options(self, listener: socket.socket, bound: bool = False) -> Any:  # noqa: FBT001, FBT002  gunicorn's
        if self.reuse_port and not bound:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return super().set_options(listener, bound=bound)

    def _is_listening(self, listener: socket.socket) -> bool:
        """Whether gunicorn need not call listen(). A second release does so itself, once it is ready (loop.py)."""
        return bool(self.handover and self.handover.has_elder()) or super()._is_listening(listener)

    def bind(self, listener: socket.socket) -> None:
        super().bind(listener)
        if self.reuse_port:
            self.handover = Handover(listener)

    def close(self) -> None:
        if self.handover:
            self.handover.leave()
        super().close()


class TCPSocket(_Shared, sock.TCPSocket):  # type: ignore[misc]
    pass


class TCP6Socket(_Shared, sock.TCP6Socket):  # type: ignore[misc]
    """Leaves IPv4 to a socket for IPv4 at the same port; without such a socket, it takes both."""

    def bind(self, listener: socket.socket) -> None:
        port = self.cfg_addr[1]
        tcp = [address for address in self.conf.address if isinstance(address, tuple)]
        if any(address[1] == port and not util.is_ipv6(address[0]) for address in tcp):
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().bind(listener)


def install(*, reuse_port: bool) -> None:
    """Replace gunicorn's socket classes, before it binds: it has no setting for this."""
    _Shared.reuse_port = reuse_port
    sock.TCPSocket, sock.TCP6Socket = TCPSocket, TCP6Socket
