"""The service behind a proxy that takes a prefix off: nginx, if it is installed."""

import json
import re
import time
from collections.abc import Iterator
from urllib.parse import urljoin

import httpx
import pytest

from tests import spare
from tests.ops.telemetry.conftest import free_port
from tests.proxies import nginx
from tests.service import PATIENCE, Service, serve

PREFIX = "/shop"
LIST = "/api/products?limit=2"
SERVERS = """
    server {{
        listen 127.0.0.1:{port};
        location {prefix}/ {{ proxy_pass http://127.0.0.1:{upstream}/; }}
        location /other/ {{
            proxy_pass http://127.0.0.1:{upstream}/; proxy_set_header X-Forwarded-Prefix /other;
        }}
    }}
"""


@pytest.fixture(scope="module")
def metrics() -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{free_port()}", timeout=PATIENCE) as client:
        yield client


@pytest.fixture(scope="module")
def service(
    database: spare.Database, metrics: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    variables = {
        "DATABASE_URL": database.url,
        "PAGE_CACHE": "on",
        "CACHE_PREFIX": "root-path",
        "ROOT_PATH": PREFIX,
        "TRUSTED_PROXIES": "127.0.0.1",
        "METRICS_PORT": str(metrics.base_url.port),
    }
    with serve(variables, tmp_path_factory.mktemp("service")) as running:
        assert running.client.get("/livez").status_code == 200
        yield running


@pytest.fixture(scope="module")
def proxied(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of nginx."""
    port = free_port()
    servers = SERVERS.format(port=port, upstream=service.address[1], prefix=PREFIX)
    with (
        nginx(servers, tmp_path_factory.mktemp("nginx")),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client,
    ):
        yield client


@pytest.mark.parametrize("prefix", [PREFIX, "/other"])
def test_links(proxied: httpx.Client, prefix: str) -> None:
    """A client that follows them stays behind the proxy."""
    page = proxied.get(prefix + LIST)
    following = page.json()["next"]
    assert following.startswith(prefix + "/api/products?")
    assert page.headers["link"] == f'<{following}>; rel="next"'
    second = proxied.get(following)
    assert second.status_code == 200
    assert proxied.get(second.json()["previous"]).json()["results"] == page.json()["results"]
    assert proxied.get(prefix + "/api/products/1").json()["id"] == 1
    assert proxied.get(prefix + "/api/nothing").json()["code"] == "not_found"


@pytest.mark.parametrize("prefix", [PREFIX, "/other"])
def test_documentation(proxied: httpx.Client, prefix: str) -> None:
    page = proxied.get(prefix + "/api/docs")
    files = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(files) == 4
    for file in files:
        assert proxied.get(urljoin(str(page.url), file)).status_code == 200, file
    settings = re.search(r'id="swagger-settings">(.*?)</script>', page.text)
    assert settings
    document = proxied.get(urljoin(str(page.url), json.loads(settings[1])["url"])).json()
    assert prefix + "/api/products" in document["paths"]
    assert all(path.startswith(prefix + "/api/") for path in document["paths"])


@pytest.mark.parametrize("probe", ["/livez", "/readyz", "/healthz"])
def test_probes(proxied: httpx.Client, service: Service, probe: str) -> None:
    """With the prefix and without, as a balancer asks inside."""
    assert proxied.get(PREFIX + probe).status_code == 200
    assert service.client.get(probe).status_code == 200
    assert service.client.get(PREFIX + probe).status_code == 200


def test_hits(service: Service, metrics: httpx.Client) -> None:
    """The second request is a hit, the third one the wire's, unless the machine is too busy for that once."""
    for limit in range(3, 8):
        answers = [service.client.get(f"/api/products?limit={limit}") for _ in range(3)]
        assert all(answer.json()["next"].startswith(PREFIX) for answer in answers)
        told = [answer.headers["cache-status"].split("; ")[1] for answer in answers]
        assert told == ["fwd=uri-miss", "hit", "hit"]
    deadline = time.monotonic() + PATIENCE
    counted = re.compile(r'outcome="hit",page="tests.products",tier="wire"} [1-5]')
    while not counted.search(_scraped(metrics)):
        assert time.monotonic() < deadline, _scraped(metrics)
        time.sleep(0.1)


def _scraped(metrics: httpx.Client) -> str:
    try:
        return metrics.get("/metrics").text
    except httpx.TransportError:  # it comes after the service
        return ""


def test_a_prefix_that_the_proxy_leaves_on(service: Service) -> None:
    kept = service.client.get(PREFIX + LIST)
    assert kept.json() == service.client.get(LIST).json()
    assert kept.json()["next"].startswith(PREFIX + "/api/products?")
    hit = service.client.get(PREFIX + LIST)
    assert "hit" in hit.headers["cache-status"]


@pytest.mark.parametrize(
    "said", ["/..", "/a/../b", "//evil.example", "shop", "/a, /b", "https://evil.example"]
)
def test_what_is_no_prefix_is_not_believed(service: Service, said: str) -> None:
    answer = service.client.get(LIST, headers={"X-Forwarded-Prefix": said})
    assert answer.json()["next"].startswith(PREFIX + "/api/products?")
