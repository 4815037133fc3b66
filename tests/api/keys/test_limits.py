"""Rate limits over real processes: one quota for all workers, by a key's name or an address."""

import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse

from api import Api, rate_class
from api.keys.minting import digest_of, mint
from tests.e2e.cache.valkey import Valkey, private_valkey
from tests.service import Service, serve
from tests.spare import Database

OWN = {
    "DJANGO_SETTINGS_MODULE": "tests.api.keys.settings",
    "TRUSTED_PROXIES": "127.0.0.1",
    "PAGE_CACHE": "on",
}
LIMITS = {"RATE_LIMIT_READ": "8/h", "RATE_LIMIT_WRITE": "6/h", "RATE_LIMIT_BULK": "2/h"}


@pytest.fixture(scope="module")
def database(django_db_setup: None) -> Database:
    return Database(str(settings.DATABASES["default"]["NAME"]))


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with private_valkey() as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def workers(
    database: Database, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Service]]:
    environment = {**OWN, **LIMITS, "DATABASE_URL": database.url, "REDIS_URL": f"unix://{valkey.socket}?db=0"}
    with ExitStack() as stack:
        yield [stack.enter_context(serve(environment, tmp_path_factory.mktemp("worker"))) for _ in range(2)]


@pytest.fixture
def client() -> dict[str, str]:
    """The fields of a client that no other test is."""
    return {"X-Forwarded-For": f"198.51.{secrets.randbelow(256)}.{secrets.randbelow(256)}"}


@pytest.fixture
def keys(database: Database) -> Iterator[list[dict[str, str]]]:
    """The fields of two keys of one client, as during a rotation, and of another client's."""
    made = []
    with database.connect() as connection:
        for name, replaced in (("one", "now"), ("one", None), ("two", None)):
            key, prefix = mint()
            connection.execute(
                "INSERT INTO api_keys_apikey (name, prefix, digest, scopes, time_created, time_replaced)"
                " VALUES (%s, %s, %s, 'orders:read orders:write', now(), %s)",
                [name, prefix, digest_of(key), replaced],
            )
            made.append({"Authorization": f"Bearer {key}"})
        yield made
        connection.execute("DELETE FROM api_keys_apikey")


def test_one_quota_for_all_workers(workers: list[Service], client: dict[str, str]) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = [
            *threads.map(lambda n: workers[n % 2].client.post("/keys/open", headers=client), range(20))
        ]
    assert Counter(answer.status_code for answer in answers) == {200: 6, 429: 14}
    taken = [answer for answer in answers if answer.status_code == 200]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"write";q=6;w=3600'}
    assert {answer.headers["ratelimit"].partition(";t=")[0] for answer in taken} == {
        f'"write";r={n}' for n in range(6)
    }
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.headers["cache-control"]) == ("rate_limit_exceeded", "no-store")
    assert refused.headers["content-type"] == "application/problem+json"
    assert 500 < int(refused.headers["retry-after"]) <= 600
    assert refused.headers["ratelimit"] == f'"write";r=0;t={refused.headers["retry-after"]}'
    other = {"X-Forwarded-For": "203.0.113.9"}
    assert workers[0].client.post("/keys/open", headers=other).status_code == 200
    assert workers[0].client.post("/keys/bulk", headers=client).status_code == 200  # another class
    for method in ("POST", "DELETE"):  # nor do a path and a method help that no route has
        assert workers[0].client.request(method, "/nowhere", headers=client).status_code == 429


def test_a_key_counts_by_its_name_and_a_bad_one_by_its_address(
    workers: list[Service], client: dict[str, str], keys: list[dict[str, str]]
) -> None:
    statuses = [
        workers[n % 2].client.post(
            "/keys/orders", headers=keys[n % 3 % 2] | {"X-Forwarded-For": f"198.51.100.{n}"}
        )
        for n in range(8)
    ]
    assert [answer.status_code for answer in statuses] == [200] * 6 + [429] * 2
    assert workers[0].client.post("/keys/orders", headers=keys[2]).status_code == 200
    bad = [
        workers[n % 2].client.post("/keys/orders", headers={"X-API-Key": mint()[0]} | client).status_code
        for n in range(8)
    ]
    assert bad == [401] * 6 + [429] * 2
    assert workers[0].client.post("/keys/orders", headers=keys[2] | client).status_code == 200


def test_the_class_of_a_route_and_of_a_method(workers: list[Service], client: dict[str, str]) -> None:
    worker = workers[0].client
    seen = [
        worker.request(m, p, headers=client).status_code
        for m, p in (("POST", "/keys/bulk"), ("GET", "/keys/search"))
    ]
    assert seen == [200, 200]
    assert worker.head("/keys/search", headers=client).status_code == 429
    assert worker.post("/keys/open", headers=client).status_code == 200
    pages = [worker.get(f"/api/products/{n}", headers=client) for n in range(11, 20)]
    assert [page.status_code for page in pages] == [200] * 8 + [429]
    assert pages[0].headers["ratelimit-policy"] == '"read";q=8;w=3600'
    assert worker.get("/livez", headers=client).status_code == 200


@pytest.mark.lean
def test_hits_that_are_written_to_the_socket_are_not_counted(
    workers: list[Service], client: dict[str, str]
) -> None:
    hits = [workers[1].client.get("/api/products/41", headers=client) for _ in range(20)]
    assert {hit.status_code for hit in hits} == {200}
    assert "ratelimit" in hits[0].headers
    assert "ratelimit" not in hits[-1].headers


def test_the_document_and_redis(workers: list[Service], valkey: Valkey, client: dict[str, str]) -> None:
    paths = workers[0].client.get("/keys/openapi.json", headers=client).json()["paths"]
    assert "Retry-After" in paths["/keys/open"]["post"]["responses"]["429"]["headers"]
    workers[0].client.post("/keys/open", headers=client)
    names = [name.decode() for name in valkey.client.keys("*:rate:*")]  # type: ignore[union-attr]
    assert names
    assert not any(client["X-Forwarded-For"] in name for name in names)
    assert all(0 < valkey.client.pttl(name) <= 3600_000 for name in names)


def test_without_redis_each_worker_counts(
    workers: list[Service], valkey: Valkey, client: dict[str, str]
) -> None:
    valkey.stop()
    try:
        for worker in workers:
            statuses = [worker.client.post("/keys/open", headers=client).status_code for _ in range(9)]
            assert statuses == [200] * 6 + [429] * 3
    finally:
        valkey.start()


def test_a_class_that_the_settings_lack() -> None:
    api = Api(urls_namespace="limits")

    @api.post("/x")
    @rate_class("x")
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    with pytest.raises(ImproperlyConfigured, match="RATE_LIMITS has no 'x'"):
        _ = api.urls
