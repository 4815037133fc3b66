"""Finds the address of a client that is behind trusted proxies."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from ops.asgi.types import Fields

WITH_PORT = re.compile(r"(?:([0-9.]+)|\[([^\]]*)\])(?::[0-9]{1,5})?")  # as some proxies write an address
MAX_FORWARDED_BYTES = 2048  # at the end of X-Forwarded-For, where the hops next to this service are
IPV6_BITS = 64  # of an address that identify a client, which has all addresses with these bits (RFC 6177)


def parse(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address in `text`, with IPv4 in IPv6 form as IPv4; None for other text, such as a socket's path."""
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def trusted_in(networks: Iterable[IPv4Network | IPv6Network]) -> Callable[[str], bool]:
    """Return a function that tells whether an address is in one of the networks, and remembers 1,024 results."""
    known = tuple(networks)

    @lru_cache(maxsize=1024)
    def is_trusted(address: str) -> bool:
        ip = parse(address)
        return ip is not None and any(ip in network for network in known)

    return is_trusted


def address_of(headers: Fields, client: tuple[str, int] | None, is_trusted: Callable[[str], bool]) -> str:
    """Return the client's address: the peer's, or the one that a trusted peer names in X-Forwarded-For.

    The field is read from its end, up to the first address that belongs to no trusted proxy: a client can write any
    address before that. Reading also stops at a part that is no address. The address read last counts.

    Empty for the peer of a unix socket.
    """
    if not client or parse(client[0]) is None:
        return ""
    address = client[0]
    if is_trusted(address):
        said = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        for hop in reversed(said[-MAX_FORWARDED_BYTES:].decode("latin-1").split(",")):
            text = hop.strip()
            if found := WITH_PORT.fullmatch(text):
                text = found[1] or found[2]
            if parse(text) is None:
                break
            address = text
            if not is_trusted(text):
                break
    return address


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """Return the addresses that belong to one client: the IPv4 address itself, or its network of IPv6."""
    ip = parse(address)
    return str(ip_network((ip, IPV6_BITS), strict=False)) if isinstance(ip, IPv6Address) else str(ip)
