"""Requests that two servers may read differently, through proxies that share their connections among clients.

The proxies answer /smuggled themselves. A request for it that the service gets was content to the proxy, and a
request to the service; an answer too many, or one too few, would be the next client's.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.e2e.security.conftest import behind
from tests.ops.telemetry.conftest import free_port
from tests.proxies import haproxy, nginx
from tests.service import Service

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d"
ONE_CHUNK = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
ENDED = b"0\r\n\r\n" + SMUGGLED
UPGRADE = [
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
]

# The fields that frame the content, and the content.
SHAPES: dict[str, tuple[list[bytes], bytes]] = {
    "length, chunked": ([LENGTH % len(ENDED), CHUNKED], ENDED),
    "chunked, length": ([CHUNKED, LENGTH % 4], ONE_CHUNK),
    "two lengths": ([LENGTH % 0, LENGTH % len(SMUGGLED)], SMUGGLED),
    "two lengths, the longer first": ([LENGTH % len(SMUGGLED), LENGTH % 0], SMUGGLED),
    "a list of lengths": ([b"Content-Length: 0, %d" % len(SMUGGLED)], SMUGGLED),
    "a signed length": ([b"Content-Length: +%d" % len(SMUGGLED)], SMUGGLED),
    "a length with a zero": ([b"Content-Length: 0%d" % len(SMUGGLED)], SMUGGLED),
    "an octal length": ([b"Content-Length: 0o%o" % len(SMUGGLED)], SMUGGLED),
    "a space before the colon": ([b"Content-Length : %d" % len(SMUGGLED)], SMUGGLED),
    "a tab before the colon": ([b"Transfer-Encoding\t: chunked", LENGTH % len(ENDED)], ENDED),
    "a folded field": ([b"X-Test: a", b" " + CHUNKED, LENGTH % len(ENDED)], ENDED),
    "a folded value": ([b"Transfer-Encoding:", b" chunked", LENGTH % len(ENDED)], ENDED),
    "a carriage return": ([b"X-Test: a\r" + CHUNKED, LENGTH % len(ENDED)], ENDED),
    "a line feed": ([b"X-Test: a\n" + CHUNKED, LENGTH % len(ENDED)], ENDED),
    "a NUL": ([CHUNKED + b"\0", LENGTH % len(ENDED)], ENDED),
    "a vertical tab": ([b"Transfer-Encoding:\x0bchunked", LENGTH % len(ENDED)], ENDED),
    "an underscore": ([b"Transfer_Encoding: chunked", LENGTH % len(ENDED)], ENDED),
    "quotes": ([b'Transfer-Encoding: "chunked"', LENGTH % len(ENDED)], ENDED),
    "another coding": ([b"Transfer-Encoding: xchunked", LENGTH % len(ENDED)], ENDED),
    "a coding after chunked": ([b"Transfer-Encoding: chunked, identity", LENGTH % len(ENDED)], ENDED),
    "chunked twice": ([CHUNKED, b"Transfer-Encoding: cow", LENGTH % len(ENDED)], ENDED),
    "a size in hexadecimal": ([CHUNKED], b"0x%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "a signed size": ([CHUNKED], b"+%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "a size that overflows": ([CHUNKED], b"1%016x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "a size that ends with a line feed": ([CHUNKED], b"%x\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)),
    "an extension with a line feed": ([CHUNKED], b"1;a\nb\r\nx\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk without its end": ([CHUNKED], b"1\r\nxy0\r\n\r\n" + SMUGGLED),
    "a trailer with a length": ([CHUNKED], b"0\r\nContent-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED)),
    "an upgrade": ([*UPGRADE, LENGTH % len(SMUGGLED)], SMUGGLED),
    "an upgrade, chunked": ([*UPGRADE, CHUNKED], ONE_CHUNK),
    "an expectation": ([b"Expect: 100-continue", LENGTH % len(SMUGGLED)], SMUGGLED),
    "an unknown expectation": ([b"Expect: 100-continue, x", LENGTH % len(SMUGGLED)], SMUGGLED),
    "content as it should be": ([LENGTH % len(SMUGGLED)], SMUGGLED),
    "chunks as they should be": ([CHUNKED], ONE_CHUNK),
}
NEXT = b"GET /number/%d HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
QUIET_SECONDS = 1.0
METHODS = (b"POST", b"GET", b"HEAD", b"DELETE", b"OPTIONS")

IN_NGINX = """
upstream service {{ server 127.0.0.1:{service}; keepalive 1; }}
server {{
    listen 127.0.0.1:{port};
    location /smuggled {{ return 403; }}
    location / {{
        proxy_pass http://service; proxy_http_version 1.1; proxy_request_buffering off;
        proxy_set_header Connection ""; proxy_set_header Host $host;
    }}
}}
"""
IN_HAPROXY = """
frontend front
    bind 127.0.0.1:{port}
    http-request deny if {{ path_beg /smuggled }}
    default_backend service
backend service
    http-reuse always
    server service 127.0.0.1:{service}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that logs each request."""
    with behind("127.0.0.1", tmp_path_factory.mktemp("behind"), ACCESS_LOG="1") as running:
        yield running


@pytest.fixture(scope="module", params=["nginx", "haproxy"])
def front(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """The address of a proxy."""
    directory, port = tmp_path_factory.mktemp(request.param), free_port()
    names = {"service": service.address[1], "port": port}
    proxies: dict[str, Callable[[], object]] = {
        "nginx": lambda: nginx(IN_NGINX.format(**names), directory),
        "haproxy": lambda: haproxy(IN_HAPROXY.format(**names), port, directory),
    }
    with proxies[request.param]():  # type: ignore[attr-defined]
        yield "127.0.0.1", port


def said(address: tuple[str, int], request: bytes) -> bytes:
    """All that is answered to it, until the connection ends, or nothing more comes."""
    answer = b""
    with socket.create_connection(address, QUIET_SECONDS) as connection, suppress(OSError):
        connection.sendall(request)
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.chaos("h2c upgrade with body; smuggling shapes")
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_smuggled(service: Service, front: tuple[str, int], shape: str) -> None:
    """Through nginx and haproxy no content becomes a request, and each other client gets its own answer."""
    fields, content = SHAPES[shape]
    for number, method in enumerate(METHODS, 1 + len(METHODS) * [*SHAPES].index(shape)):
        head = b"\r\n".join([b"%b /number/0 HTTP/1.1" % method, b"Host: localhost", *fields, b"", b""])
        said(front, head + content + NEXT % 0)
        answer = said(front, NEXT % number)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert answer.endswith(b'{"number": %d}' % number), answer
    service.wait_for(b'"/number/%d"' % number)
    assert b"smuggled" not in service.log.read_bytes()
