"""IPv4 and IPv6 side by side: a server on an address of the one listens on the other's, too."""

import socket

TWINS = {"0.0.0.0": "::", "127.0.0.1": "::1"}  # noqa: S104  a user may name it


def both(host: str) -> list[str]:
    """Return `host`, and its twin in IPv6 where this machine has that."""
    twin = TWINS.get(host)
    if twin is None:
        return [host]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((twin, 0))
    except OSError:
        return [host]
    return [host, twin]


def written(host: str, port: int) -> str:
    """Return both as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
