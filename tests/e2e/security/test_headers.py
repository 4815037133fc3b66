"""Every answer tells a browser what it may do with it, whoever answers: endpoint, cache, layer, wire, edge."""

import socket
from email.parser import BytesHeaderParser
from email.policy import HTTP

import httpx
import pytest

from tests.service import PATIENCE, Service

STRICT = "default-src 'none'; frame-ancestors 'none'"
FIELDS = {
    "x-content-type-options": ["nosniff"],
    "referrer-policy": ["same-origin"],
    "content-security-policy": [STRICT],
    "strict-transport-security": [],
}
HTTPS = {"X-Forwarded-Proto": "https"}


def security(headers: httpx.Headers) -> dict[str, list[str]]:
    """The values of each security field."""
    return {name: headers.get_list(name) for name in FIELDS}


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/scheme", {}, 200),
        ("HEAD", "/scheme", {}, 200),
        ("GET", "/moved", {}, 302),
        ("GET", "/stream", {}, 200),
        ("GET", "/failing", {}, 500),
        ("GET", "/nothing", {}, 404),
        ("PATCH", "/livez", {}, 405),
        ("GET", "/livez", {}, 200),
        ("GET", "/readyz", {}, 200),
        ("GET", "/healthz", {}, 200),
        ("GET", "/api/openapi.json", {}, 200),
        ("GET", "/api/docs/swagger-ui.css", {}, 200),
        ("GET", "/scheme", {"Host": "elsewhere.example"}, 400),
        ("OPTIONS", "/scheme", {"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}, 204),
        ("OPTIONS", "/scheme", {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}, 403),
        ("GET", "/links?page=of-headers", {}, 200),
    ],
)  # fmt: skip
def test_answers(trusting: Service, method: str, target: str, headers: dict[str, str], status: int) -> None:
    """Three times: an answer that may be kept is computed, found in memory, then written by the wire."""
    for _ in range(3):
        answer = trusting.client.request(method, target, headers=headers)
        assert (answer.status_code, security(answer.headers)) == (status, FIELDS)
        answer = trusting.client.request(method, target, headers=headers | HTTPS)
        secure = FIELDS | {"strict-transport-security": ["max-age=3600"]}
        assert (answer.status_code, security(answer.headers)) == (status, secure)


@pytest.mark.parametrize("target", ["/own", "/own/cached", "/stream?own"])
def test_an_endpoint_keeps_its_own(trusting: Service, target: str) -> None:
    expected = FIELDS | {
        "referrer-policy": ["no-referrer"],
        "content-security-policy": ["default-src 'self'"],
    }
    for _ in range(3):
        for method in ("GET", "HEAD"):
            answer = trusting.client.request(method, target)
            assert (answer.status_code, security(answer.headers)) == (200, expected)


@pytest.mark.parametrize("target", ["/own/cached", "/links?page=of-headers", "/api/docs"])
def test_a_304_replaces_no_field(trusting: Service, target: str) -> None:
    """A cache takes the fields of a 304 for those of the answer that it has (RFC 9111, 3.2)."""
    for _ in range(3):
        known = trusting.client.get(target, headers=HTTPS).headers["etag"]
        answer = trusting.client.get(target, headers={"If-None-Match": known} | HTTPS)
        assert (answer.status_code, {*map(len, security(answer.headers).values())}) == (304, {0})


@pytest.mark.lean
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"NO HTTP\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000, 431),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ],
    ids=["malformed", "large", "connect", "coding"],
)
def test_refusals_of_the_edge(trusting: Service, request_: bytes, status: int) -> None:
    with socket.create_connection(trusting.address, PATIENCE) as connection:
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    line, _, head = answer.partition(b"\r\n")
    fields = BytesHeaderParser(policy=HTTP).parsebytes(head)
    assert line.split()[1] == b"%d" % status
    assert {name: fields.get_all(name, []) for name in FIELDS} == FIELDS


def test_the_documentation_may_load_its_own_files(trusting: Service) -> None:
    """A browser's reading of the policy is in docs/decisions/0030-security-headers.md."""
    page = trusting.client.get("/api/docs")
    (policy,) = page.headers.get_list("content-security-policy")
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["script-src"] == "'self'"
    assert directives["connect-src"] == "'self'"
    assert directives["frame-ancestors"] == directives["default-src"] == "'none'"
    assert page.text.count("<script src=") == page.text.count("<script") - 1  # the last one is data
    assert "style=" not in page.text
    assert security(page.headers) | {"content-security-policy": []} == FIELDS | {
        "content-security-policy": []
    }
