"""API keys over real processes: made and revoked by the command, asked for by two workers that share nothing."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings
from django_redis import get_redis_connection  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.keys.lookup import TTL_SECONDS
from api.keys.minting import digest_of, mint
from tests.chaos import Figures
from tests.e2e.cache.proxy import REFUSING, Network, network
from tests.e2e.prometheus import free_port
from tests.service import PATIENCE, Service, serve
from tests.spare import Database
from tests.wiretap import tap

OWN = {"DJANGO_SETTINGS_MODULE": "tests.api.keys.settings", "LOG_LEVEL": "debug", "ACCESS_LOG": "1"}
SAMPLES = 10_000
SOON_SECONDS = 2.0  # by message; a busy machine is late
Make = Callable[..., str]
Manage = Callable[..., "subprocess.CompletedProcess[str]"]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def database(django_db_setup: None) -> Database:
    return Database(str(settings.DATABASES["default"]["NAME"]))


@pytest.fixture(autouse=True)
def without_keys(database: Database) -> Iterator[None]:
    yield
    with database.connect() as connection:
        connection.execute("DELETE FROM api_keys_apikey")


@pytest.fixture
def manage(database: Database) -> Manage:
    def manage(*command: str) -> "subprocess.CompletedProcess[str]":
        done = database.manage("apikey", *command, **OWN | {"LOG_LEVEL": "info"})
        assert done.returncode == 0, done.stderr
        return done

    return manage


@pytest.fixture
def make(database: Database) -> Make:
    """Make a key by hand, faster than the command does."""

    def make(name: str, scopes: str = "orders:read", **times: str) -> str:
        key, prefix = mint()
        values = {"name": name, "prefix": prefix, "digest": digest_of(key), "scopes": scopes}
        columns = values | {"time_created": "now"} | times
        statement = (
            f"INSERT INTO api_keys_apikey ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
        )
        with database.connect() as connection:
            connection.execute(statement, [*columns.values()])
        return key

    return make


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def workers(
    database: Database, metrics_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Service]]:
    """Two with a page cache, which hear of changes, and one without, which does not."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serve({"DATABASE_URL": database.url, **OWN, **more}, tmp_path_factory.mktemp("worker"))
            )
            for more in (
                {"PAGE_CACHE": "on", "TTL_SECONDS": "600", "METRICS_PORT": str(metrics_port)},
                {"PAGE_CACHE": "l2", "TTL_SECONDS": "600"},
                {"PAGE_CACHE": "off"},
            )
        ]


def statuses(workers: list[Service], key: str, path: str = "/keys/orders") -> list[int]:
    return [worker.client.get(path, headers=bearer(key)).status_code for worker in workers]


def test_from_create_to_revoke(workers: list[Service], manage: Manage) -> None:
    [key] = manage("create", "shop", "--scope", "orders:read").stdout.split()
    for worker in workers:
        answer = worker.client.get("/keys/orders", headers=bearer(key))
        assert answer.json() == {"name": "shop", "scopes": ["orders:read"]}
        assert answer.headers["cache-control"] == "private, no-store"
        assert worker.client.get("/keys/orders", headers={"X-API-Key": key}).status_code == 200
        assert (
            worker.client.get("/keys/orders", headers={"authorization": f"bEARER  {key}"}).status_code == 200
        )
        # The stage `auth` has the time of a lookup in memory.
        fastest = min(
            float(re.findall(r"auth;dur=([\d.]+)", answer.headers["server-timing"])[0])
            for answer in [worker.client.get("/keys/anyone", headers=bearer(key)) for _ in range(20)]
        )
        assert 0 < fastest < 1
        lacking = worker.client.post("/keys/orders", headers=bearer(key))
        assert (lacking.status_code, lacking.json()["code"]) == (403, "insufficient_scope")
        assert lacking.headers["www-authenticate"] == (
            'Bearer realm="api", error="insufficient_scope", scope="orders:read orders:write"'
        )

    [new] = manage("rotate", "shop", "--grace", "1h").stdout.split()
    assert statuses(workers, new) == statuses(workers, key) == [200, 200, 200]
    manage("revoke", key.split("_")[1])
    began = time.monotonic()
    until(lambda: statuses(workers[:2], key) == [401, 401], SOON_SECONDS)
    until(lambda: statuses(workers, key) == [401, 401, 401], 5 + SOON_SECONDS)
    assert time.monotonic() - began < TTL_SECONDS + SOON_SECONDS
    assert statuses(workers, new) == [200, 200, 200]


@pytest.mark.chaos("API key: missing, wrong, revoked, expired, near miss")
def test_no_key_a_wrong_an_expired_and_a_revoked_one_are_the_same(workers: list[Service], make: Make) -> None:
    """No key, a wrong, a revoked, an expired one and near misses have one and the same answer, 401."""
    revoked, expired, good = (
        make("revoked", time_revoked="now"),
        make("expired", time_expires="now"),
        make("good"),
    )
    fields: list[dict[str, str]] = [
        {},
        *map(
            bearer,
            (revoked, expired, good[:-1] + ("a" if good[-1] != "a" else "b"), good + "a", good.upper()),
        ),
        bearer("sub10_aaaaaaaaaaaa_" + 43 * "a"),
        bearer("é"),
        bearer(f"{good}, Bearer {good}"),
        bearer(8000 * "a"),
        {"Authorization": f"Basic {good}"},
        {"X-API-Key": f"Bearer {good}"},
    ]
    for worker in workers:
        answers = [
            worker.client.get("/keys/orders", headers={n: v.encode("latin-1") for n, v in each.items()})  # type: ignore[arg-type]
            for each in fields
        ]
        assert {(a.status_code, a.headers["www-authenticate"], a.text) for a in answers} == {
            (401, 'Bearer realm="api"', answers[0].text)
        }
        assert (answers[0].json()["code"], answers[0].headers["cache-control"]) == (
            "unauthenticated",
            "no-store",
        )
        assert answers[0].headers["content-type"] == "application/problem+json"
        assert worker.client.get("/keys/orders", headers=bearer(good)).status_code == 200


@pytest.mark.chaos("API key: missing, wrong, revoked, expired, near miss", long=True)
def test_the_time_of_a_refusal_tells_nothing(workers: list[Service], make: Make, figures: Figures) -> None:
    """Of two refusals, the time does not tell which is which: 10,000 samples, no better than by chance."""
    good = make("good")
    kinds = {
        "wrong": good[:-1] + ("a" if good[-1] != "a" else "b"),
        "revoked": make("revoked", time_revoked="now"),
        "expired": make("expired", time_expires="now"),
        "unknown": mint()[0],
    }
    samples: dict[str, list[float]] = {name: [] for name in kinds}
    with closing(HTTPConnection(*workers[2].address)) as connection:
        for _ in range(SAMPLES // len(kinds)):
            for name, key in kinds.items():
                began = time.perf_counter()
                connection.request("GET", "/keys/orders", headers=bearer(key))
                answer = connection.getresponse()
                answer.read()
                samples[name].append(time.perf_counter() - began)
                assert answer.status == 401
    for one, other in combinations(kinds, 2):
        signal = abs(chance_to_be_slower(samples[one], samples[other]) - 0.5)
        # Four standard deviations of the Mann-Whitney statistic, of six comparisons.
        bound = 4 * (1 / (6 * len(samples[one]))) ** 0.5
        figures("chance to tell two apart, beyond a half", 100 * signal, "%", most=round(100 * bound, 1))


def chance_to_be_slower(one: list[float], other: list[float]) -> float:
    """That a value of `one` is greater than a value of `other`: 0.5 if they are of one distribution."""
    ranked = sorted([(value, 1) for value in one] + [(value, 0) for value in other])
    ranks = sum(rank for rank, (_, is_one) in enumerate(ranked, 1) if is_one)
    return (ranks - len(one) * (len(one) + 1) / 2) / (len(one) * len(other))


def test_a_key_appears_nowhere(
    workers: list[Service],
    manage: Manage,
    database: Database,
    metrics_port: int,
) -> None:
    """In the log at its most talkative, metrics, errors, Redis, the database; the last has its use."""
    made = manage("create", "hidden", "--scope", "orders:read", "orders:write")
    [key] = made.stdout.split()
    secret = key.rpartition("_")[2]
    assert secret not in made.stderr
    seen = ""
    for worker in workers:
        for headers in (bearer(key), {"X-API-Key": key}, {"X-Other": key}, {"Cookie": f"key={key}"}):
            for method, target in (
                ("GET", "/keys/orders"),
                ("POST", "/keys/orders"),
                ("POST", "/keys/orders/sync"),
                ("POST", "/keys/fails"),
                ("GET", f"/api/products?limit=1&key={key}"),
                ("GET", f"/api/products/{key}"),
                ("GET", f"/nowhere/{key}"),
            ):
                answer = worker.client.request(method, target, headers=headers)
                seen += f"{answer.headers} {answer.text}"
    assert '"code":"internal_error"' in seen
    with database.connect() as connection:
        until(lambda: _used(connection, "hidden"))
        [prefix] = connection.execute("SELECT prefix FROM api_keys_apikey").fetchone() or ("",)
        dump = "".join(
            str(connection.execute(f'SELECT "{table}"::text FROM "{table}"').fetchall())
            for [table] in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            if not table.startswith("shop_product")
        )
        activity = str(connection.execute("SELECT query FROM pg_stat_activity").fetchall())
    assert prefix == key.split("_")[1]
    assert prefix in dump
    redis = get_redis_connection("default")
    stored = b""
    for name in redis.keys("*"):
        with suppress(Exception):  # another type than a string
            stored += name + redis.get(name)
    url = f"http://127.0.0.1:{metrics_port}/metrics"
    until(lambda: "problems_total" in httpx.get(url).text)  # the workers write them once a second
    metrics = httpx.get(url).text
    logs = "".join(worker.log.read_text() for worker in workers)
    assert "ValueError" in logs
    for place in (logs, metrics, seen, stored.decode("latin-1"), dump, activity):
        assert secret not in place


def _used(connection: "psycopg.Connection[Any]", name: str) -> bool:
    found = connection.execute("SELECT time_used FROM api_keys_apikey WHERE name = %s", [name]).fetchone()
    return bool(found and found[0])


@pytest.fixture
def links() -> Iterator[Network]:
    with network() as made:
        yield made


def test_without_postgres_known_keys_are_good_until_their_time(
    database: Database,
    links: Network,
    tmp_path: Path,
    make: Make,
) -> None:
    keys = [make("known"), make("unknown")]
    with tap(settings.DATABASES["default"], tmp_path) as wiretap:
        way = links.way(tmp_path / ".s.PGSQL.1")
        url = wiretap.url.partition("?")[0].replace("@/", f"@127.0.0.1:{way.port}/")
        own = {"DATABASE_URL": f"{url}?sslmode=disable&gssencmode=disable", **OWN}
        with serve(own, tmp_path) as service:

            def status(key: str) -> int:
                return service.client.get("/keys/orders", headers=bearer(key)).status_code

            assert status(keys[0]) == 200
            service.wait_for(b"connections at worst")
            wiretap.clear()
            assert [status(keys[0]) for _ in range(50)] == 50 * [200]
            assert wiretap.executions <= 2  # one to read it again in the background, one to note its use
            way.turn(door=REFUSING)
            began = time.monotonic()
            seen = []
            while time.monotonic() - began < TTL_SECONDS + 1:
                seen.append((time.monotonic() - began, status(keys[0])))
                answer = service.client.get("/keys/orders", headers=bearer(keys[1]))
                assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
                assert answer.headers["retry-after"] == "1"
            assert {status for age, status in seen if age < TTL_SECONDS / 2} == {200}
            assert {status for _, status in seen} == {200, 503}
            assert seen[-1][1] == 503
            way.clear()
            until(lambda: status(keys[0]) == 200)


def test_the_document_says_what_is_asked_for(workers: list[Service]) -> None:
    document = workers[0].client.get("/keys/openapi.json").json()
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["apiKey"]["in"], schemes["apiKey"]["name"]) == ("header", "X-API-Key")
    operations = document["paths"]["/keys/orders"]
    assert operations["get"]["security"] == [{"bearer": ["orders:read"]}, {"apiKey": ["orders:read"]}]
    assert operations["post"]["security"][0] == {"bearer": ["orders:read", "orders:write"]}
    for status in ("401", "403"):
        refusal = operations["get"]["responses"][status]
        assert "application/problem+json" in refusal["content"]
        assert "WWW-Authenticate" in refusal["headers"]
    public = workers[0].client.get("/api/openapi.json").json()
    assert "securitySchemes" not in public["components"]
    operations = [each for path in public["paths"].values() for each in path.values()]
    assert not any("security" in each for each in operations)


def test_private_whatever_the_view_says(workers: list[Service], make: Make) -> None:
    key = make("shop")
    for target, told in (("public", "private, no-store"), ("kept", "private, max-age=60")):
        for headers in (bearer(key), {"X-API-Key": key}):
            answer = workers[0].client.get(f"/keys/orders/{target}", headers=headers)
            assert answer.headers["cache-control"] == told
            assert "cache-status" not in answer.headers
