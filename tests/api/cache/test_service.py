"""The service as it is deployed: products from the cache, under any spelling, in bounded memory."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import httpx
import pytest
import redis
from django.conf import settings

from ops.project import NAME
from tests.chaos import Figures
from tests.service import PATIENCE, Service, serve
from tests.spare import Database

DISTINCT = 20_000
WARM = 6_000  # more than a worker keeps of them
GROWTH = 5  # MB that its memory may still grow by afterwards: it was 1
CONNECTIONS = 8

HOSTILE = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=https",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-HTTP-Method-Override": "DELETE",
    "Cookie": "session=evil",
    "Origin": "https://evil.example",
    "Cache-Control": "no-cache",
    "Range": "bytes=0-3",
    **dict.fromkeys(
        (
            *("X-Host", "X-Original-Host", "X-Backend-Host", "X-HTTP-Host-Override", "X-Forwarded-Server"),
            *(
                "X-Forwarded-Port",
                "X-Forwarded-Scheme",
                "X-Forwarded-SSL",
                "X-Forwarded-Path",
                "X-Forwarded-Uri",
            ),
            *(
                "X-Real-IP",
                "X-Client-IP",
                "Client-IP",
                "True-Client-IP",
                "CF-Connecting-IP",
                "X-Cluster-Client-IP",
            ),
            *(
                "X-HTTP-Method",
                "X-Method-Override",
                "X-Override-URL",
                "X-Url-Scheme",
                "X-Scheme",
                "Front-End-Https",
            ),
            *(
                "X-Prefix",
                "X-Script-Name",
                "X-Request-URI",
                "X-Path-Info",
                "Destination",
                "Max-Forwards",
                "Via",
            ),
            *(
                "Referer",
                "User-Agent",
                "From",
                "Accept-Language",
                "Accept-Charset",
                "Save-Data",
                "DNT",
                "Pragma",
            ),
            *(
                "Sec-Fetch-Site",
                "Sec-Purpose",
                "Purpose",
                "X-Moz",
                "X-Wap-Profile",
                "X-Requested-With",
                "X-Csrf-Token",
            ),
            *(
                "X-Amzn-Trace-Id",
                "traceparent",
                "tracestate",
                "baggage",
                "X-B3-TraceId",
                "X-Debug",
                "X-Timer",
            ),
        ),
        "evil",
    ),
}


@pytest.fixture(scope="module")
def prefix() -> Iterator[str]:
    prefix = f"test-{secrets.token_hex(6)}"
    yield prefix
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        for key in client.scan_iter(f"{prefix}:*", count=10_000):
            client.delete(key)


@pytest.fixture(scope="module")
def cached(prefix: str, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """With one worker."""
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    environment = {"DATABASE_URL": database.url, "PAGE_CACHE": "on", "CACHE_PREFIX": prefix}
    with (
        serve(environment, tmp_path_factory.mktemp("cached")) as running,
        redis.Redis.from_url(settings.REDIS_URL) as client,
    ):
        running.client.get("/api/products?limit=1")  # waits for the worker
        give_up = time.monotonic() + PATIENCE
        while client.pubsub_numsub(f"{prefix}:changed")[0][1] == 0:
            assert time.monotonic() < give_up, "the worker hears of no change"
        yield running


@pytest.fixture
def get(cached: Service) -> Callable[..., httpx.Response]:
    return cached.client.get


@pytest.fixture
def entries(prefix: str) -> Iterator[Callable[[], set[bytes]]]:
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield lambda: {*client.scan_iter(f"{prefix}:entry:*", count=10_000)}


def hit(get: Callable[..., httpx.Response], url: str) -> httpx.Response:
    """The answer from the cache; on a busy machine Redis may take too long once."""
    for _ in range(5):
        response = get(url)
        if response.headers["cache-status"].startswith(f"{NAME}; hit; "):
            return response
    pytest.fail(f"{url} is not answered from the cache")


def wait_for(entries: Callable[[], set[bytes]], others: set[bytes]) -> set[bytes]:
    """The entries, once there is one besides the others: it is stored after it was answered."""
    give_up = time.monotonic() + PATIENCE
    while (now := entries()) == others:
        assert time.monotonic() < give_up
    assert len(now) == len(others) + 1
    return now


@pytest.mark.chaos("cache poisoning: unkeyed inputs and spellings")
@pytest.mark.parametrize(
    "spellings",
    [
        [
            "/api/products",
            "/api/%70roducts",
            "/%61pi/products?",
            "/api/products?&&",
            "/api/products?limit=100",
        ],
        [
            "/api/products?sort=low_price&low_price_min=12.50&fields=id,low_price",
            "/api/products?low_price_min=12.5&fields=low_price%2Cid",
            "/api/products?f%69elds=low_price,id&&low_price_min=012.50&limit=100&layout=rows",
        ],
        [
            "/api/products?created_after=2020-01-01T00:00:00Z",
            "/api/products?created_after=2020-01-01T01:00:00.000%2B01:00&sort=time_created",
        ],
        ["/api/products/7", "/api/products/%37", "/api/products/7?&"],
        ["/api/categories", "/api/categories?sort=slug&limit=100"],
    ],
)
def test_one_page_under_any_spelling(
    get: Callable[..., httpx.Response], entries: Callable[[], set[bytes]], spellings: list[str]
) -> None:
    """All spellings of a page have one entry, with its content."""
    others = entries()
    first = get(spellings[0])
    kept = wait_for(entries, others)
    for spelling in spellings:
        response = hit(get, spelling)
        assert response.content == first.content
        assert response.headers["etag"] == first.headers["etag"]
    assert entries() == kept


@pytest.mark.chaos("cache poisoning: unkeyed inputs and spellings")
def test_hostile_fields(
    get: Callable[..., httpx.Response], entries: Callable[[], set[bytes]], figures: Figures
) -> None:
    """No field of a request, such as X-Forwarded-Host, gets into an answer or makes another entry."""
    others = entries()
    first = get("/api/products?limit=9", headers=HOSTILE)
    assert "evil" not in first.text + str(first.headers)
    kept = wait_for(entries, others)
    for name, value in HOSTILE.items():
        response = get("/api/products?limit=9", headers={name: value})
        assert response.content == first.content
    assert entries() == kept
    figures("fields", len(HOSTILE), least=60)
    assert get("/api/products?limit=9", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.chaos("cache poisoning: unkeyed inputs and spellings")
@pytest.mark.parametrize(
    "query", ["x=1", "limit=0", "limit=1&limit=1", "cursor=x", "sort=sold_qty", "LIMIT=1"]
)
def test_refusals_leave_nothing_behind(
    get: Callable[..., httpx.Response], entries: Callable[[], set[bytes]], query: str
) -> None:
    """A refusal leaves nothing in the cache."""
    before = entries()
    for _ in range(2):
        response = get(f"/api/products?{query}")
        assert response.status_code == 422
        assert "cache-status" not in response.headers
    assert entries() == before


def test_a_product_that_is_not_there(
    get: Callable[..., httpx.Response], entries: Callable[[], set[bytes]]
) -> None:
    before = entries()
    for _ in range(2):
        response = get("/api/products/99999999")
        assert response.status_code == 404
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["cache-status"] == f"{NAME}; fwd=uri-miss"
    assert entries() == before


@pytest.mark.parametrize(
    "url", ["/api/products", "/api/products/1", "/api/docs", "/api/openapi.json", "/api/x"]
)
def test_head(cached: Service, url: str) -> None:
    cached.client.get(url)
    got, head = cached.client.get(url), cached.client.head(url)
    varying = {"date", "age", "cache-status", "x-request-id", "x-request-duration", "server-timing"}
    assert head.content == b""
    assert head.status_code == got.status_code
    assert {*head.headers.multi_items()} - {*got.headers.multi_items()} <= {
        pair for pair in head.headers.multi_items() if pair[0] in varying
    }
    assert head.headers.keys() == got.headers.keys()


async def ask(address: tuple[str, int], targets: Iterator[str]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    for target in targets:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.split(b":")[1]))
    writer.close()
    await writer.wait_closed()


def resident(service: Service) -> float:
    """MB of the worker."""
    arbiter = service.process.pid
    (worker,) = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory of a process from /proc")
def test_memory_is_flat_under_different_queries(cached: Service) -> None:
    async def ask_all(number: int) -> None:
        part = islice(targets, number)
        await asyncio.gather(*(ask(cached.address, part) for _ in range(CONNECTIONS)))

    targets = iter([f"/api/products?limit=1&low_price_min={cents / 100}" for cents in range(DISTINCT)])
    asyncio.run(ask_all(WARM))
    warm = resident(cached)
    asyncio.run(ask_all(DISTINCT - WARM))
    assert resident(cached) - warm < GROWTH
