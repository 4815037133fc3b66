"""A worker that has more to do than it can refuses what is too much at once, and nothing else."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
from django.db import connection

from tests.service import PATIENCE, Service, serve
from tests.spare import Database

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'shop_product'::regclass"
MISSING = f"/api/products/{2**62}"  # which is not cached
REFUSED_SECONDS = 0.2  # the lock is waited for for half a second


@pytest.fixture
def service(
    request: pytest.FixtureRequest, tmp_path: Path, django_db_setup: None
) -> Iterator[tuple[Service, str]]:
    """One request at a time."""
    runtime, cache = getattr(request, "param", ("lean", "on"))
    url = Database(connection.settings_dict["NAME"]).url
    own = {
        "DATABASE_URL": url,
        "ADMISSION_LIMIT": "1",
        "RUNTIME": runtime,
        "PAGE_CACHE": cache,
        "TRUSTED_PROXIES": "127.0.0.1",
        "HSTS_SECONDS": "300",
    }
    with serve(own, tmp_path) as running:
        running.client.get("/livez")  # it has started, and warmed its listings
        yield running, url


@contextmanager
def one_request_waits(service: Service, url: str) -> Iterator[None]:
    with (
        psycopg.connect(url) as holder,
        psycopg.connect(url, autocommit=True) as admin,
        ThreadPoolExecutor() as threads,
    ):
        holder.execute("LOCK TABLE shop_product IN ACCESS EXCLUSIVE MODE")
        waiting: Future[httpx.Response] = threads.submit(service.client.get, MISSING)
        deadline = time.monotonic() + PATIENCE
        while admin.execute(WAITING).fetchone() == (0,):
            assert time.monotonic() < deadline
        yield
        holder.rollback()
        assert waiting.result().status_code in (200, 404, 503)  # the lock may have been held for too long


@pytest.mark.chaos("overload 1, 2, 5, 10, 20 x capacity")
@pytest.mark.parametrize("service", [("lean", "on"), ("stock", "on")], ids=["lean", "stock"], indirect=True)
def test_what_is_too_much_is_refused(service: tuple[Service, str], request: pytest.FixtureRequest) -> None:
    """A refusal comes at once, with its code; probes and cached answers are not refused, a place is for writes."""
    running, url = service
    (runtime, _), client = request.node.callspec.params["service"], running.client
    deadline = time.monotonic() + PATIENCE
    while "detail=l1" not in client.get("/api/categories").headers["cache-status"]:
        assert time.monotonic() < deadline
    with one_request_waits(running, url):
        # Pages that are computed for the cache have the kept place, too, if they come so far: without the wire.
        for path in ("/api/nothing", *([f"/api/products/{2**61}", MISSING] if runtime == "lean" else [])):
            began = time.monotonic()
            refused = client.get(path, headers={"X-Forwarded-Proto": "https"})
            assert time.monotonic() - began < REFUSED_SECONDS
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
            fields = refused.headers
            assert (fields["retry-after"], fields["cache-control"]) == ("1", "no-store")
            assert fields["content-type"] == "application/problem+json"
            assert fields["x-request-id"]
            assert fields["strict-transport-security"] == "max-age=300"
            assert "strict-transport-security" not in client.get(path).headers
        assert client.head("/api/nothing").status_code == 503
        assert client.get("/api/categories").status_code == 200
        assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        assert client.post("/api/categories", json=1).json()["code"] != "overloaded"
    assert client.get(MISSING).status_code == 404


@pytest.mark.lean
@pytest.mark.parametrize("service", [("lean", "off")], ids=["without a cache"], indirect=True)
def test_layers_have_their_say_without_a_page_cache(service: tuple[Service, str]) -> None:
    """A refusal where the request is parsed has their fields, and what none of them admits goes to them."""
    running, url = service
    client = running.client
    with one_request_waits(running, url):
        secure = client.get(MISSING, headers={"X-Forwarded-Proto": "https"})
        assert (secure.status_code, secure.headers["strict-transport-security"]) == (503, "max-age=300")
        assert "strict-transport-security" not in client.get(MISSING).headers
        assert client.get(MISSING, headers={"Host": "elsewhere"}).status_code == 400


@pytest.mark.lean
def test_a_refusal_keeps_the_order(service: tuple[Service, str]) -> None:
    """Of requests that come at once on one connection, the answers come in their order, refusals among them."""
    running, url = service
    ask = b"GET /api/products/%d HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with one_request_waits(running, url), socket.create_connection(running.address, PATIENCE) as one:
        one.sendall(b"".join(ask % (2**62 - number) for number in (1, 2, 3)))
        answers = b""
        while answers.count(b"HTTP/1.1 503 ") < 3:
            answers += one.recv(65536)
        assert answers.count(b"overloaded") == 3, answers


@pytest.mark.lean
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "content",
    [b"Content-Length: 5\r\n\r\nabcde", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"],
)
def test_a_refused_read_with_content_has_one_answer(
    service: tuple[Service, str], method: bytes, content: bytes
) -> None:
    running, url = service
    ask = b" /api/products/%d HTTP/1.1\r\nHost: localhost\r\n" % (2**62 - 1)
    live = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with one_request_waits(running, url), socket.create_connection(running.address, PATIENCE) as one:
        one.sendall(method + ask + content + live)
        answers = b"".join(iter(lambda: one.recv(65536), b""))
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"503", b"200"]


@pytest.mark.lean
def test_slow_clients_take_no_place(service: tuple[Service, str]) -> None:
    """The content of their requests has not come yet."""
    running, _ = service
    head = b"POST /api/categories HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    slow = [socket.create_connection(running.address, PATIENCE) for _ in range(20)]
    for each in slow:
        each.sendall(head)
    deadline = time.monotonic() + PATIENCE
    while running.client.get(MISSING).status_code != 404:  # which it would be for as long as they are slow
        assert time.monotonic() < deadline
    for each in slow:
        each.close()
