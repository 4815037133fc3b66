"""A client's address: the peer's, or the last one before the trusted proxies."""

from ipaddress import ip_network

import pytest

from ops.asgi.clients import address_of, network_of, trusted_in

TRUSTED = trusted_in([ip_network("10.0.0.0/8"), ip_network("fd00::/8")])
PROXY, CLIENT = "10.0.0.1", "203.0.113.7"


@pytest.mark.parametrize(
    ("peer", "said", "address"),
    [
        (CLIENT, [], CLIENT),
        (CLIENT, ["198.51.100.1"], CLIENT),  # any client can write it
        (PROXY, [], PROXY),
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"198.51.100.1, {CLIENT}"], CLIENT),
        (PROXY, ["198.51.100.1", f"{CLIENT},10.9.9.9 , fd00::1"], CLIENT),
        (PROXY, ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, [f"{CLIENT}, unknown, 10.2.2.2"], "10.2.2.2"),
        (PROXY, [""], PROXY),
        (PROXY, ["x" * 5000 + f", {CLIENT}"], CLIENT),
        (f"::ffff:{PROXY}", [CLIENT], CLIENT),
        ("fd00::2", ["2001:db8::1"], "2001:db8::1"),
        (PROXY, [f"{CLIENT}:51234"], CLIENT),
        (PROXY, ["[2001:db8::1]:443"], "2001:db8::1"),
        (PROXY, ["198.51.100.1, [2001:db8::1]"], "2001:db8::1"),
        (PROXY, [f"{CLIENT}:x"], PROXY),
        ("/run/app.sock", [CLIENT], ""),
        (None, [CLIENT], ""),
    ],
)
def test_address(peer: str | None, said: list[str], address: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in said]
    assert address_of(headers, (peer, 1) if peer else None, TRUSTED) == address


def test_the_addresses_of_one_client() -> None:
    assert network_of(CLIENT) == network_of(f"::ffff:{CLIENT}") == CLIENT
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1:2:3") == "2001:db8::/64"
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
