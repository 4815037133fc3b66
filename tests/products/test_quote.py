"""Quotes: prices in another currency, and a source of rates that is well, slow, ill or not there."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django_redis.cache import RedisCache  # type: ignore[import-untyped]
from pydantic import ValidationError

from products.schemas import Rates
from tests.products.conftest import shared
from tests.service import PATIENCE, Service, serve
from tests.upstream import Source, answers, hangs, source

RATES = {
    "amount": 1.0,
    "base": "USD",
    "date": "2026-11-27",
    "rates": {"EUR": 0.9245, "JPY": 156.5, "KWD": 0.3077},
}
WELL = answers(json.dumps(RATES).encode())
IN_ALL = 0.3  # seconds: 50 ms for Redis, 200 for the rates, the rest for all else
BUSY = 1.0  # more, on a machine that is busy with tests
QUOTE = "/api/products/1/quote?currency=EUR"


@contextmanager
def served(directory: Path, rates: str, **environment: str) -> Iterator[Service]:
    """The service, which shares no rates with another test's."""
    own = {"DJANGO_SETTINGS_MODULE": "config.settings", "DATABASE_URL": shared().url, "RATES_URL": rates}
    with serve({**own, "CACHE_PREFIX": secrets.token_hex(4), **environment}, directory) as running:
        yield running


@pytest.fixture(scope="module")
def rates() -> Iterator[Source]:
    with source(WELL) as running:
        yield running


FIELDS = {
    "X-Request-ID": "the-id",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": "a=1",
}


@pytest.fixture(scope="module")
def first(
    products: None, rates: Source, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, httpx.Response]]:
    """With patience, and with rates that are well; and its first quote."""
    with served(tmp_path_factory.mktemp("service"), rates.url, RATES_TIMEOUT="10000") as running:
        yield running, running.client.get("/api/products/1/quote?currency=EUR", headers=FIELDS)


@pytest.fixture
def api(first: tuple[Service, httpx.Response]) -> httpx.Client:
    return first[0].client


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    ("currency", "prices", "rate"),
    [
        ("EUR", ["1.16", "92449.99"], "0.9245"),  # 1.155625, half up
        ("JPY", ["196", "15649998"], "156.5"),  # 195.625
        ("KWD", ["0.385", "30769.997"], "0.3077"),
        ("USD", ["1.25", "99999.99"], "1"),
    ],
)
def test_prices(
    api: httpx.Client, insert: Callable[..., int], currency: str, prices: list[str], rate: str
) -> None:
    product = insert(0, low_price="1.25", high_price="99999.99")
    answer = api.get(f"/api/products/{product}/quote?currency={currency}")
    assert answer.status_code == 200, answer.text
    quote = answer.json()
    assert 0 <= quote.pop("rates_age_seconds") < 60
    assert quote == {
        "id": product,
        "currency": currency,
        "low_price": prices[0],
        "high_price": prices[1],
        "rate": rate,
        "as_of": "2026-11-27",
        "stale": False,
    }
    assert answer.headers["cache-control"] == "no-store"


def test_an_unknown_currency_is_answered_with_the_known_ones(api: httpx.Client) -> None:
    answer = api.get("/api/products/1/quote?currency=XXX")
    assert problem(answer) == (422, "unknown_currency")
    assert answer.json()["errors"][0]["parameter"] == "currency"
    assert answer.json()["supported"] == [{"currency": ["EUR", "JPY", "KWD", "USD"]}]


@pytest.mark.parametrize(
    "query", ["", "currency=", "currency=eur", "currency=EURO", "currency=EUR%0A", "currency=%FF"]
)
def test_no_currency(api: httpx.Client, query: str) -> None:
    answer = api.get(f"/api/products/1/quote?{query}")
    assert problem(answer) == (422, "invalid_parameter")
    assert answer.json()["errors"][0]["parameter"] == "currency"


def test_no_such_product(api: httpx.Client) -> None:
    assert problem(api.get("/api/products/99999999/quote?currency=EUR")) == (404, "not_found")


def test_the_id_and_the_trace_go_along(first: tuple[Service, httpx.Response], rates: Source) -> None:
    sent = rates.requests[0]
    for name, value in FIELDS.items():
        assert f"\r\n{name}: {value}\r\n".lower() in sent.decode().lower()
    assert "upstream;dur=" in first[1].headers["server-timing"]


def test_a_source_that_hangs_and_comes_back(products: None, tmp_path: Path) -> None:
    """A quote is answered in time: with a problem, with rates that are known from before, and with new ones."""
    prefix = secrets.token_hex(4)
    old = {"fetched": time.time() - 3600, "content": json.dumps(RATES)}
    with source(hangs) as ill, served(tmp_path, ill.url, CACHE_PREFIX=prefix) as running:
        assert get(running, "/api/products/1").status_code == 200  # it has started
        answer = get(running, QUOTE)
        assert problem(answer) == (503, "rates_unavailable")
        assert answer.headers["retry-after"] == "1"
        keep = RedisCache(settings.REDIS_URL, settings.CACHES["default"] | {"KEY_PREFIX": f"{prefix}:django"})
        keep.set("upstream:rates:", old)  # as another worker may have done
        until(lambda: get(running, QUOTE).status_code == 200)
        quote = get(running, QUOTE).json()
        assert quote["stale"] is True
        assert quote["rates_age_seconds"] >= 3600
        ill.behave = WELL
        until(lambda: get(running, QUOTE).json()["stale"] is False)


def get(running: Service, path: str) -> httpx.Response:
    began = time.perf_counter()
    answer = running.client.get(path)
    assert "quote" not in path or time.perf_counter() - began < IN_ALL + BUSY
    return answer


def until(condition: Callable[[], bool]) -> None:
    """The service says nothing when its pause is over: it is asked again and again."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_none_is_configured(products: None, tmp_path: Path) -> None:
    with served(tmp_path, "") as running:
        answer = running.client.get(QUOTE)
        assert problem(answer) == (503, "rates_unavailable")
        assert "retry-after" not in answer.headers
        assert running.client.get("/healthz").json()["status"] == "ok"


def test_requests_beside_a_hung_source(products: None, tmp_path: Path) -> None:
    """Many quotes wait for one call; reads go on meanwhile."""
    with (
        source(hangs) as hung,
        served(tmp_path, hung.url, RATES_TIMEOUT="10000") as running,
        ThreadPoolExecutor(20) as threads,
    ):
        url = str(running.client.base_url.join(QUOTE))
        quotes = [threads.submit(httpx.get, url, timeout=PATIENCE) for _ in range(20)]
        hung.wait_for_a_request()
        for product in range(1, 51):
            assert running.client.get(f"/api/products/{product}").status_code == 200
        assert not any(quote.done() for quote in quotes)
        hung.end()
        assert {problem(quote.result()) for quote in quotes} == {(503, "rates_unavailable")}
        assert len(hung.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"base": "EUR"},
        {"date": "yesterday"},
        {"rates": {}},
        {"rates": {"EUR": float("nan")}},
        {"rates": {"EUR": float("inf")}},
        {"rates": {"EUR": -1}},
        {"rates": {"EUR": 0}},
        {"rates": {"EUR": 1e300}},
        {"rates": {"EUR": 1e-300}},
        {"rates": {"EUR": None}},
        {"rates": {"EUR": "much"}},
        {"rates": {"euro": 1}},
        {"rates": [1]},
        {"rates": {f"{a}{b}A": 1 for a in "ABCDEFGHIJKLMNO" for b in "ABCDEFGHIJKLMNO"}},
    ],
)
def test_rates_that_are_none(change: dict[str, Any]) -> None:
    Rates.model_validate_json(json.dumps(RATES))
    with pytest.raises(ValidationError):
        Rates.model_validate_json(json.dumps(RATES | change))


def test_the_address_may_be_in_a_file(products: None, rates: Source, tmp_path: Path) -> None:
    """It may hold a key, as those of many services do."""
    file = tmp_path / "rates_url"
    file.write_text(f"{rates.url}/?key=s3cret-of-sixteen\n")
    with served(tmp_path, "", RATES_URL_FILE=str(file), RATES_TIMEOUT="10000") as running:
        assert running.client.get(QUOTE).status_code == 200
        assert b"s3cret" not in running.log.read_bytes()
