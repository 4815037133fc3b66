"""Bad paths, methods, hosts and bytes: always an answer of 4xx, and problem details wherever Django answers."""

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.service import PATIENCE, Service
from tests.wiretap import Wiretap

LIST = "/api/products"
READ_ONLY = [LIST, f"{LIST}/1", "/api/categories"]
DOCUMENTS = ["/api/openapi.json", "/api/docs", "/api/docs/favicon.svg"]
Refused = Callable[..., Any]


def test_an_id_out_of_range(refused: Refused) -> None:
    (fault,) = refused(422, f"{LIST}/{2**63}")["errors"]
    assert fault["parameter"] == "product_id"


@pytest.mark.parametrize(
    "name",
    [
        *("0", "-1", "1" * 20, "1" * 400, "1" * 5000),
        *("NaN", "Infinity", "1.0", "1e3", "%2B1", "%FF", "%00", "1%00", "%ED%A0%80"),
        *("1%0A", "%201", "%D9%A1", "1/", "1/1", "..%2F1", "0x1", "1;a=1", "1,2"),
    ],
    ids=lambda name: name[:10],
)  # fmt: skip
def test_ids_that_are_none(refused: Refused, name: str) -> None:
    assert refused(404, f"{LIST}/{name}")["code"] == "not_found"


def test_an_id_has_one_spelling(refused: Refused) -> None:
    refused(404, f"{LIST}/01")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/api", "/api/", f"{LIST}/", "/api/Products", "/API/products", "//api/products"),
        *("/api//products", "/api/products%00", "/api/%FF", "/api/docs/", "/static/x"),
        *("/api/docs/..%2Fninja.py",),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_unknown_paths(refused: Refused, path: str, method: str) -> None:
    refused(404, path, method)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PURGE"])
@pytest.mark.parametrize("url", [*READ_ONLY, f"{LIST}?limit=0", f"{LIST}/{2**63}"])
def test_methods(api: httpx.Client, refused: Refused, url: str, method: str) -> None:
    refused(405, url, method)
    assert api.request(method, url).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("url", DOCUMENTS)
def test_methods_of_documents(refused: Refused, url: str, method: str) -> None:
    refused(405, url, method)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff" * 100_000])
def test_a_body_where_none_is_taken(refused: Refused, body: bytes) -> None:
    refused(405, LIST, "POST", content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "a b", "..", "'\"", "[", "x:y:z"])
def test_hostile_hosts(refused: Refused, host: str) -> None:
    assert refused(400, LIST, headers={"host": host})["code"] == "bad_host"


@pytest.mark.parametrize("host", ["evil.example", "localhost", "..", "\xff"])
def test_no_host_gets_into_an_answer(api: httpx.Client, host: str) -> None:
    response = api.get(f"{LIST}?limit=1", headers={b"host": host.encode("latin-1")})
    assert "//" not in response.text.replace("about:blank", "")
    assert host not in response.text + str(response.headers)


def raw(service: Service, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer to these bytes."""
    with socket.create_connection(service.address, PATIENCE) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), head.lower(), body


def request(target: bytes, method: bytes = b"GET", host: bytes = b"127.0.0.1", more: bytes = b"") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b\r\n" % (method, target, host, more)


@pytest.mark.parametrize("target", [b"/api/products?limit=1", b"/api/products?limit=0", b"/nope"])
def test_http_1_0_knows_no_chunks(service: Service, target: bytes) -> None:
    """RFC 9112, 6.1: a server must not send Transfer-Encoding to a client of HTTP/1.0."""
    _, head, _ = raw(service, request(target).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b"transfer-encoding" not in head


PARSER = [
    request(b"/api/products?category=\xff"),
    request(b"/api/products?category=\xed\xa0\x80"),
    request(b"/api/products?category=\xc3\xa9"),
    request(b"/api/products?\xff=1"),
    request(b"/api/products/\xff"),
    request(b"/\xff"),
    request(b"/api/products?limit=1\0"),
    request(b"/api/products?limit=1\x01"),
    request(b"/api/products?limit=1 x"),
    request(b"http://\xff/api/products"),
    request(b"api/products"),
    request(b""),
    request(b"/api/products", b"foo"),
    request(b"/api/products", b"get"),
    request(b"/api/products", b"\xff"),
    request(b"/api/products", more=b"Content-Length: 0\r\nContent-Length: 1\r\n"),
    request(b"/api/products", more=b"Content-Length: -1\r\n"),
    request(b"/api/products", more=b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    request(b"/api/products", more=b"X\0: 1\r\n"),
    request(b"/api/products", more=b"X: \0\r\n"),
    request(b"/api/products", more=b"X: 1\r\n 2\r\n\r"),
    b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03",
    b"nonsense\r\n\r\n",
]


@pytest.mark.parametrize("data", PARSER, ids=lambda data: repr(data[:60]))
def test_what_the_http_parser_refuses(service: Service, wiretap: Wiretap, data: bytes) -> None:
    """None of this reaches Django: uvicorn answers it with plain text and closes the connection."""
    wiretap.clear()
    logged = service.log.stat().st_size
    assert raw(service, data)[0] == 400
    assert wiretap.executions == 0
    assert b"Traceback" not in service.log.read_bytes()[logged:]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/api/products?" + b"a=1&" * 2_000, 422),
        (b"/api/products?limit=" + b"1" * 8_000, 422),
        (b"/api/products?cursor=" + b"A" * 8_000, 422),
        (b"/api/products?created_after=" + b"1" * 8_000, 422),
        (b"/api/products?low_price_min=" + b"1" * 8_000, 422),
        (b"/api/products?fields=" + b"id," * 2_600, 422),
        (b"/api/products?" + b"%FF" * 2_600, 422),
        (b"/api/products?" + b"+" * 8_000, 422),
        (b"/api/products?%", 422),
        (b"/api/products?limit=%", 422),
        (b"/api/products?limit=%4", 422),
        (b"/api/products?limit=%GG", 422),
        (b"/api/products?limit=1?limit=1", 422),
        (b"/" + b"a" * 8_000, 404),
        pytest.param(b"/" + b"a" * 60_000, 414, marks=pytest.mark.lean),
        (b"/api/products/" + b"1" * 8_000, 404),
        (b"/api/products/%", 404),
        pytest.param(b"*", 400, marks=pytest.mark.lean),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "",
)
def test_long_and_odd_targets(service: Service, wiretap: Wiretap, target: bytes, status: int) -> None:
    wiretap.clear()
    answered, head, body = raw(service, request(target))
    assert answered == status
    assert b"content-type: application/problem+json" in head
    assert json.loads(body[body.index(b"{") : body.rindex(b"}") + 1])["status"] == status
    assert len(body) < 4096
    assert wiretap.executions == 0
