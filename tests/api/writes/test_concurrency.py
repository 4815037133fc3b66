"""Writers beside each other, over two workers with a page cache: no update is lost, and each reads its own."""

import asyncio
import json
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import redis
from django.conf import settings

from api.cache.changes import MAX_KEYS
from ops.asgi.disconnect import LISTEN_AFTER_SECONDS
from tests.extra import OWN_SESSIONS
from tests.service import PATIENCE, Service, serve
from tests.spare import Database

WRITERS = 50


@pytest.fixture(scope="module")
def workers(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """Two services of one worker each, so that a test can choose its worker, on one Redis."""
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    own = {"PAGE_CACHE": "on", "CACHE_PREFIX": f"test-{secrets.token_hex(6)}", "DATABASE_URL": database.url}
    with ExitStack() as stack, redis.Redis.from_url(settings.REDIS_URL) as client:
        services = [stack.enter_context(serve(own, tmp_path_factory.mktemp("worker"))) for _ in range(2)]
        for service in services:
            assert service.client.get("/livez").status_code == 200
        give_up = time.monotonic() + PATIENCE
        while client.pubsub_numsub(f"{own['CACHE_PREFIX']}:changed")[0][1] < len(services):
            assert time.monotonic() < give_up, "the workers hear of no change"
        yield services


def test_no_update_is_lost(workers: list[Service]) -> None:
    """Each adds one to the row that it has read, with If-Match, and again where another writer was faster.

    It reads through one worker and writes through the other, whose answer comes after the first has dropped the row.
    """
    voucher = {"code": "counted", "percent": 1, "category": "garden"}
    url = workers[0].client.post("/api/vouchers", json=voucher).headers["location"]
    refused = 0

    async def write(client: httpx.AsyncClient, reader: str, writer: str) -> None:
        nonlocal refused
        while True:
            read = await client.get(reader + url)
            change: dict[str, Any] = {"uses": read.json()["uses"] + 1}
            answer = await client.patch(writer + url, json=change, headers={"If-Match": read.headers["etag"]})
            if answer.status_code != 412:
                break
            refused += 1
        assert answer.status_code == 200, answer.text
        assert answer.json() == read.json() | change
        assert (await client.get(reader + url)).json()["uses"] >= change["uses"]

    async def crowd() -> None:
        one, other = (f"http://127.0.0.1:{service.address[1]}" for service in workers)
        async with httpx.AsyncClient(timeout=PATIENCE) as client, asyncio.TaskGroup() as tasks:
            for number in range(WRITERS):
                tasks.create_task(write(client, *((one, other) if number % 2 else (other, one))))

    asyncio.run(crowd())
    assert workers[1].client.get(url).json()["uses"] == WRITERS
    assert refused > 0


def ask(connection: socket.socket, request: bytes) -> dict[str, Any]:
    """Faster than a client library, whose own time would hide what the workers do."""
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    [length] = re.findall(rb"content-length: (\d+)", head.lower())
    while len(body) < int(length):
        body += connection.recv(65536)
    return dict(json.loads(body))


def test_a_write_is_seen_through_the_other_worker_at_once(workers: list[Service]) -> None:
    """Without the confirmation, a tenth of such reads is older than the write."""
    voucher = {"code": "seen", "percent": 2, "category": "garden"}
    url = workers[0].client.post("/api/vouchers", json=voucher).headers["location"]
    get = f"GET {url} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    with ExitStack() as stack:
        writer, reader = (
            stack.enter_context(socket.create_connection(service.address, PATIENCE)) for service in workers
        )
        for number in range(300):
            for _ in range(3):
                ask(reader, get)  # from its memory
            change = b'{"uses":%d}' % number
            assert ask(writer, head.encode() + b"%d\r\n\r\n%b" % (len(change), change))["uses"] == number
            assert ask(reader, get)["uses"] == number


def test_many_writes_are_seen_through_the_other_worker_at_once(workers: list[Service]) -> None:
    """As many as are named row by row in the page cache, and one more."""
    vouchers = [{"code": f"many{n}", "percent": n, "category": "garden"} for n in range(MAX_KEYS + 1)]
    writer, reader = (service.client for service in workers)
    made = writer.post("/api/vouchers/bulk", json=vouchers, headers={"Prefer": "return=minimal"})
    assert made.status_code == 201, made.text
    ids = made.json()
    for number, some in enumerate([ids, ids[1:]] * 3, 1):
        urls = [f"/api/vouchers/{each}" for each in some[:: MAX_KEYS // 2]]
        for url in urls:
            reader.get(url)
        change = [{"id": each, "uses": number} for each in some]
        assert writer.patch("/api/vouchers/bulk", json=change).status_code == 200
        assert [reader.get(url).json()["uses"] for url in urls] == [number] * len(urls)
    assert writer.request("DELETE", "/api/vouchers/bulk", json=ids).status_code == 204
    assert {reader.get(url).status_code for url in urls} == {404}


def test_a_client_that_leaves_leaves_no_stale_answer(workers: list[Service]) -> None:
    """The write waits for a lock as its client leaves. It is committed all the same, logged, and then invalidates."""
    voucher = {"code": "left", "percent": 3, "category": "garden"}
    url = workers[0].client.post("/api/vouchers", json=voucher).headers["location"]
    change = b'{"uses":7}'
    head = f"PATCH {url} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"
    waiting = f"SELECT FROM {OWN_SESSIONS} AND wait_event_type = 'Lock' AND query LIKE 'WITH %shop_voucher%'"
    database = Database(str(settings.DATABASES["default"]["NAME"]))
    with database.connect() as holder, database.connect() as spy, holder.transaction():
        holder.execute("SELECT FROM shop_voucher WHERE id = %s FOR UPDATE", [url.rpartition("/")[2]])
        with socket.create_connection(workers[0].address, PATIENCE) as client:
            client.sendall(head.encode() + change)
            while not spy.execute(waiting).fetchall():
                pass
            time.sleep(2 * LISTEN_AFTER_SECONDS)  # until the worker listens for its client
        for service in workers:
            assert service.client.get(url).json()["uses"] == 0  # is cached, for ten seconds
    workers[0].wait_for(
        b'"method":"PATCH","route":"/api/vouchers/{voucher_id}","ids":["%b"]'
        % url.rpartition("/")[2].encode()
    )
    give_up = time.monotonic() + 5
    while {service.client.get(url).json()["uses"] for service in workers} != {7}:
        assert time.monotonic() < give_up, "an old answer"


def test_a_transaction_is_seen_as_a_whole_or_not_at_all(workers: list[Service]) -> None:
    """Commands of two tables: their rows, their errors and their invalidation come together."""
    writer, reader = (service.client for service in workers)

    def slugs(client: httpx.Client) -> tuple[set[str], bool]:
        answer = client.get("/api/categories?limit=100")
        return {row["slug"] for row in answer.json()["results"]}, "hit" in answer.headers["cache-status"]

    before, _ = slugs(reader)
    assert slugs(reader) == (before, True)
    refused = writer.post("/api/shelves/shelf-a?codes=shelf-1,shelf-1")
    assert (refused.status_code, refused.json()["errors"][0]["parameter"]) == (409, "code")
    assert slugs(reader) == (before, True)  # nothing was invalidated
    assert writer.post("/api/shelves/shelf-a?codes=shelf-1,shelf-2").status_code == 204
    assert slugs(reader) == (before | {"shelf-a"}, False)
    assert writer.post("/api/shelves/shelf-a?codes=shelf-3").json()["errors"][0]["parameter"] == "slug"
