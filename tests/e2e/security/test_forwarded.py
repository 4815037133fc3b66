"""X-Forwarded-Proto: believed of a trusted proxy, and only where it is one scheme; an answer goes by it."""

import itertools
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.security.conftest import behind
from tests.ops.telemetry.conftest import free_port
from tests.proxies import nginx
from tests.service import PATIENCE, Service

HTTPS = {"X-Forwarded-Proto": "https"}
NOT_BELIEVED = [
    [("X-Forwarded-Proto", value)]
    for value in ("https, http", "https,https", "HTTPS", "https ;", "wss", "on", "", "h" * 5000)
]
NOT_BELIEVED += [
    [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "https")],
    [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")],
    [("X-Forwarded-Ssl", "on"), ("Forwarded", "proto=https"), ("X-Forwarded-Scheme", "https")],
    [("X_Forwarded_Proto", "https")],
]


def test_a_trusted_proxy_is_believed(trusting: Service) -> None:
    answer = trusting.client.get("/scheme", headers=HTTPS)
    absolute = f"https://127.0.0.1:{trusting.address[1]}/next"
    assert answer.json() == {"secure": True, "next": absolute}
    assert answer.headers["link"] == f"<{absolute}>"
    assert "Secure" in answer.headers["set-cookie"]
    assert trusting.client.get("/moved", headers=HTTPS).headers["location"].startswith("https://127.0.0.1:")
    for headers in ({}, {"X-Forwarded-Proto": "http"}):
        plain = trusting.client.get("/scheme", headers=headers)
        assert not plain.json()["secure"]
        assert "Secure" not in plain.headers["set-cookie"]


@pytest.mark.parametrize("headers", NOT_BELIEVED, ids=repr)
def test_what_is_no_scheme_is_not_believed(trusting: Service, headers: list[tuple[str, str]]) -> None:
    answer = trusting.client.get("/scheme", headers=headers)
    assert answer.json()["next"].startswith("http://")
    assert "strict-transport-security" not in answer.headers


def test_another_client_is_not_believed(untrusting: Service) -> None:
    for _ in range(3):  # the third answer is the wire's
        assert not untrusting.client.get("/scheme", headers=HTTPS).json()["secure"]
        assert untrusting.client.get("/links", headers=HTTPS).json()["next"].startswith("http://")


@pytest.mark.parametrize("first", ["http", "https"])
def test_no_client_gets_the_other_schemes_links(trusting: Service, first: str) -> None:
    """The cache has an entry for each, in Redis, in memory and on the wire, whoever came first."""
    order = [first, *({"http", "https"} - {first})]
    told = []
    for scheme in itertools.chain.from_iterable([each] * 4 for each in order * 3):
        answer = trusting.client.get(f"/links?page={first}", headers={"X-Forwarded-Proto": scheme})
        assert answer.json()["next"] == f"{scheme}://api.example.com/next"
        assert answer.headers["link"] == f"<{scheme}://api.example.com/next>"
        assert ("strict-transport-security" in answer.headers) == (scheme == "https")
        told.append(answer.headers["cache-status"].split("; ")[1])
    computed = [told[0], told[4]]
    assert (computed, told.count("hit")) == (["fwd=uri-miss"] * 2, len(told) - 2)


@pytest.fixture(scope="module")
def l2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with behind("127.0.0.1", tmp_path_factory.mktemp("l2"), PAGE_CACHE="l2") as service:
        yield service


def test_the_same_in_redis(l2: Service) -> None:
    for scheme in ("https", "http", "https", "http"):
        answer = l2.client.get("/links", headers={"X-Forwarded-Proto": scheme})
        assert answer.json()["next"] == f"{scheme}://api.example.com/next"
    assert "detail=l2" in answer.headers["cache-status"]


SERVERS = """
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{secure} ssl;
        ssl_certificate {directory}/certificate; ssl_certificate_key {directory}/key;
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
"""


@pytest.fixture(scope="module")
def proxied(
    trusting: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of nginx without TLS and with it."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("nginx")
    request = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    files = ["-keyout", str(directory / "key"), "-out", str(directory / "certificate")]
    subprocess.run([*request, *files], check=True, capture_output=True)
    port, secure_port = free_port(), free_port()
    servers = SERVERS.format(directory=directory, upstream=trusting.address[1], port=port, secure=secure_port)
    with (
        nginx(servers, directory),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as plain,
        httpx.Client(
            base_url=f"https://127.0.0.1:{secure_port}",
            timeout=PATIENCE,
            verify=False,  # noqa: S501
        ) as secure,
    ):
        yield plain, secure


def test_through_nginx(proxied: tuple[httpx.Client, httpx.Client]) -> None:
    """A client that writes the field itself changes nothing: nginx writes its own."""
    plain, secure = proxied
    for headers in ({}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Proto": "https"}):
        for client in (plain, secure):
            scheme = client.base_url.scheme
            answer = client.get("/scheme", headers=headers)
            assert answer.json() == {"secure": scheme == "https", "next": str(client.base_url.join("/next"))}
            assert ("Secure" in answer.headers["set-cookie"]) == (scheme == "https")
            assert ("strict-transport-security" in answer.headers) == (scheme == "https")
            cached = client.get("/links?page=nginx", headers=headers)
            assert cached.json()["next"].startswith(f"{scheme}://")
