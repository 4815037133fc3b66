"""One row for one key: beside each other, killed, cut off, left; over workers that share nothing but Postgres."""

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings

from ops.asgi.disconnect import LISTEN_AFTER_SECONDS
from tests.api.idempotency.conftest import OWN, voucher
from tests.service import PATIENCE, Service, serve
from tests.wiretap import Trap, Wiretap, tap

Vouchers = Callable[[dict[str, Any]], int]
Rows = psycopg.Connection[Any]
Answer = tuple[int, bytes]
FIELD, REPLAYED = "Idempotency-Key", "idempotency-replayed"
RUNS, CLIENTS = 20, 50
REFUSALS = {
    "idempotency_key_in_use",
    "database_unavailable",
    "overloaded",
}  # the last one where the pool has no connection in time


def post(service: Service, content: dict[str, Any], key: str, **fields: str) -> httpx.Response:
    """On a connection of its own."""
    url = f"http://127.0.0.1:{service.address[1]}{fields.pop('path', '/api/vouchers')}"
    # Without its certificates, which take httpx 50 ms to read.
    return httpx.post(url, json=content, headers={FIELD: key, **fields}, timeout=PATIENCE, verify=False)  # noqa: S501


def listed(service: Service) -> list[Any]:
    """The vouchers, maybe from a cache."""
    url = f"http://127.0.0.1:{service.address[1]}/api/vouchers?limit=1000"
    return list(httpx.get(url, timeout=PATIENCE, verify=False).json()["results"])  # noqa: S501


def until_free(service: Service, content: dict[str, Any], key: str, **fields: str) -> httpx.Response:
    """Again as long as the key is in use."""
    give_up = time.monotonic() + PATIENCE
    while (answer := post(service, content, key, **fields)).status_code == 409:
        assert answer.json()["code"] == "idempotency_key_in_use"
        assert answer.headers["retry-after"] == "1"
        assert time.monotonic() < give_up
    return answer


def kill_worker(service: Service) -> None:
    arbiter = service.process.pid
    for pid in Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"exporter" not in command:
            os.kill(int(pid), signal.SIGKILL)


async def ask(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes) -> Answer:
    reader, writer = stream
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def parallel(services: list[Service], runs: int, vouchers: Vouchers, key: str) -> list[int]:
    """The ids of the vouchers that `runs` keys make, each sent by CLIENTS at once, half of them to each service."""
    ids = []
    async with AsyncExitStack() as stack:
        streams = []
        for number in range(CLIENTS):
            reader, writer = await asyncio.open_connection(*services[number % len(services)].address)
            stack.callback(writer.close)
            streams.append((reader, writer))
        for run in range(runs):
            content = voucher()
            body = json.dumps(content).encode()
            request = (
                "POST /api/vouchers HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n{FIELD}: {key}-{run}\r\n\r\n"
            ).encode() + body
            made: set[bytes] = set()
            statuses, give_up = {0}, time.monotonic() + PATIENCE
            while statuses != {201}:
                assert time.monotonic() < give_up, statuses
                answers = [*await asyncio.gather(*(ask(stream, request) for stream in streams))]
                statuses = {status for status, _ in answers}
                made |= {body for status, body in answers if status == 201}
                assert {json.loads(body)["code"] for status, body in answers if status != 201} <= REFUSALS
            assert len(made) == 1
            assert vouchers(content) == 1
            ids.append(json.loads(made.pop())["id"])
    return ids


def test_fifty_at_once_make_one_row(workers: list[Service], vouchers: Vouchers, key: str) -> None:
    ids = asyncio.run(parallel(workers, RUNS, vouchers, key))
    # No endpoint ran twice, not even to be undone: each run takes a number of the sequence.
    assert ids == [*range(ids[0], ids[0] + RUNS)]


def test_a_worker_that_is_killed_between_commit_and_reply(
    workers: list[Service], wire: Wiretap, vouchers: Vouchers, key: str
) -> None:
    for run in range(RUNS):
        victim, other = workers[run % 2], workers[1 - run % 2]
        content = voucher()
        listed(other)  # is cached
        wire.trap = Trap(answered=True, spring=partial(kill_worker, victim))
        with pytest.raises(httpx.TransportError):
            post(victim, content, f"{key}-{run}")
        assert wire.trap is None
        assert vouchers(content) == 1
        again = post(other, content, f"{key}-{run}")
        assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
        assert again.json()["code"] == content["code"]
        assert again.json() in listed(other)  # which the dead worker has not told of its write
        assert vouchers(content) == 1


def audited(worker: Service, answer: httpx.Response) -> list[dict[str, Any]]:
    """The lines of audit of a request."""
    lines = [json.loads(line) for line in worker.log.read_bytes().splitlines()]
    own = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    return [line for line in own if line["logger"] == "api.audit"]


@pytest.mark.parametrize("answered", [True, False], ids=["after", "before"])
def test_a_connection_that_is_lost_under_the_commit(
    workers: list[Service], wire: Wiretap, vouchers: Vouchers, key: str, *, answered: bool
) -> None:
    content = voucher()
    for each in workers:
        listed(each)  # is cached
    wire.trap = Trap(answered=answered, spring=lambda: None)
    lost = post(workers[0], content, key)
    for each in workers:  # a client that looks sees what has happened
        assert [row["code"] for row in listed(each)].count(content["code"]) == answered
    assert (lost.status_code, lost.json()["code"]) == (503, "write_outcome_unknown")
    assert lost.headers["retry-after"] == "1"
    assert "same Idempotency-Key" in lost.json()["detail"]
    again = until_free(workers[1], content, key)
    assert (again.status_code, REPLAYED in again.headers) == (201, answered)
    assert vouchers(content) == 1
    (line,) = audited(workers[0], lost)
    assert (line["outcome"], len(line["ids"])) == ("unknown", 1)
    assert [line.get("outcome") for line in audited(workers[1], again)] == ([] if answered else [None])


@pytest.mark.lean
def test_a_write_whose_answer_never_comes(workers: list[Service], wire: Wiretap, vouchers: Vouchers) -> None:
    """Without a key, it is for the client to look, who sees it."""
    content = voucher()
    for each in workers:
        listed(each)  # is cached
    wire.withholds = lambda: True
    url = f"http://127.0.0.1:{workers[0].address[1]}/api/vouchers"
    lost = httpx.post(url, json=content, timeout=PATIENCE, verify=False)  # noqa: S501
    wire.withholds = lambda: False
    assert (lost.status_code, lost.json()["code"]) == (503, "write_outcome_unknown")
    assert vouchers(content) == 1
    (line,) = audited(workers[0], lost)
    assert (line["outcome"], "ids" in line) == ("unknown", False)
    for each in workers:
        while True:  # until it has a connection again
            url = f"http://127.0.0.1:{each.address[1]}/api/vouchers?limit=1000"
            seen = httpx.get(url, timeout=PATIENCE, verify=False)  # noqa: S501
            if seen.status_code == 200:
                break
        assert content["code"] in [row["code"] for row in seen.json()["results"]]


class Gate:
    """Where the endpoint `waits` knocks."""

    def __init__(self, listener: socket.socket, executor: ThreadPoolExecutor) -> None:
        self._listener, self._executor = listener, executor
        self.fields = {"path": "/once/waits", "gate": listener.getsockname()}

    def begin(
        self, send: Any, service: Service, content: dict[str, Any], key: str
    ) -> "Future[httpx.Response]":
        """Send a request to it."""
        return self._executor.submit(send, service, content, key, **self.fields)

    def knocked(self) -> socket.socket:
        """The endpoint waits now, until the socket is closed."""
        return self._listener.accept()[0]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as executor:
        listener.settimeout(PATIENCE)
        listener.bind(str(tmp_path / "gate"))
        listener.listen()
        yield Gate(listener, executor)


def test_while_the_first_runs_others_are_told_to_wait(
    workers: list[Service], vouchers: Vouchers, key: str, gate: Gate
) -> None:
    content = voucher()
    first = gate.begin(post, workers[0], content, key)
    with closing(gate.knocked()):
        for worker in workers:
            refused = post(worker, content, key, **gate.fields)
            assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_in_use")
            assert refused.headers["retry-after"] == "1"
            assert post(worker, voucher(), f"{key}-other").status_code in (201, 422)
    assert first.result().status_code == 201
    again = post(workers[1], content, key, **gate.fields)
    assert (again.content, again.headers[REPLAYED]) == (first.result().content, "true")
    assert vouchers(content) == 1


def test_a_client_that_leaves(workers: list[Service], vouchers: Vouchers, key: str, gate: Gate) -> None:
    """What it began goes on to its end, which a retry finds. Cached lists have its row."""
    content = voucher()
    listed(workers[0])  # is cached
    body = json.dumps(content, separators=(",", ":")).encode()  # as httpx writes it
    head = (
        f"POST /once/waits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Gate: {gate.fields['gate']}\r\n{FIELD}: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(workers[0].address, PATIENCE) as client:
        client.sendall(head.encode() + body)
        knocked = gate.knocked()
        time.sleep(2 * LISTEN_AFTER_SECONDS)  # until the worker listens for its client
    with closing(knocked):
        time.sleep(LISTEN_AFTER_SECONDS)  # and has seen that it left
    again = until_free(workers[1], content, key, **gate.fields)
    assert (again.status_code, again.headers[REPLAYED]) == (201, "true")
    assert vouchers(content) == 1
    assert again.json() in listed(workers[0])


def test_a_worker_that_is_killed_while_it_runs(
    workers: list[Service], vouchers: Vouchers, key: str, gate: Gate
) -> None:
    content = voucher()
    first = gate.begin(post, workers[0], content, key)
    with closing(gate.knocked()):
        kill_worker(workers[0])
        assert isinstance(first.exception(), httpx.TransportError)
    assert vouchers(content) == 0
    again = gate.begin(until_free, workers[1], content, key)
    gate.knocked().close()
    assert again.result().status_code == 201
    assert REPLAYED not in again.result().headers
    assert vouchers(content) == 1


def test_the_primary_key_is_the_last_guard(
    workers: list[Service], rows: Rows, vouchers: Vouchers, key: str, gate: Gate
) -> None:
    """An answer has come under the key while the endpoint ran, past the lock: its write is undone for that one."""
    content = voucher()
    first = gate.begin(post, workers[0], content, key)
    gate.knocked().close()
    assert first.result().status_code == 201
    rows.execute("DELETE FROM shop_voucher WHERE code = %s", [content["code"]])
    rows.execute("CREATE TABLE aside AS TABLE api_idempotency_key")
    try:
        rows.execute("DELETE FROM api_idempotency_key")
        second = gate.begin(post, workers[1], content, key)
        with closing(gate.knocked()):
            rows.execute("INSERT INTO api_idempotency_key TABLE aside")
    finally:
        rows.execute("DROP TABLE aside")
    assert (second.result().content, second.result().headers[REPLAYED]) == (first.result().content, "true")
    assert vouchers(content) == 0


def test_a_refusal_meets_an_answer(workers: list[Service], rows: Rows, key: str, gate: Gate) -> None:
    """The same where the endpoint refuses: one key has one answer."""
    content = voucher()
    first = gate.begin(post, workers[0], content, key)
    gate.knocked().close()
    assert first.result().status_code == 201
    rows.execute("CREATE TABLE aside AS TABLE api_idempotency_key")
    try:
        rows.execute("DELETE FROM api_idempotency_key")
        second = gate.begin(post, workers[1], content, key)  # its code is taken
        with closing(gate.knocked()):
            rows.execute("INSERT INTO api_idempotency_key TABLE aside")
    finally:
        rows.execute("DROP TABLE aside")
    assert (second.result().content, second.result().headers[REPLAYED]) == (first.result().content, "true")


@pytest.mark.lean
def test_a_migration_meanwhile(workers: list[Service], rows: Rows, vouchers: Vouchers, key: str) -> None:
    """Its prepared statements are stale: the whole runs again, on the same connection or another."""
    contents = [voucher() for _ in range(6)]
    for number, content in enumerate(contents):
        kind = "integer" if number % 2 else "smallint"
        rows.execute(f"ALTER TABLE api_idempotency_key ALTER status TYPE {kind}")
        assert post(workers[1], content, f"{key}-{number}").status_code == 201
    assert [vouchers(content) for content in contents] == [1] * 6


@pytest.mark.lean
def test_the_stock_runtime_beside_the_lean_one(
    workers: list[Service], rows: Rows, vouchers: Vouchers, key: str, tmp_path: Path
) -> None:
    with (
        tap(settings.DATABASES["default"], tmp_path) as wire,
        serve({**OWN, "DATABASE_URL": wire.url, "RUNTIME": "stock"}, tmp_path) as stock,
    ):
        stock.wait_for(b"connections at worst")
        asyncio.run(parallel([stock, workers[1]], 3, vouchers, key))
        for answered in (True, False):
            content, name = voucher(), f"{key}-{answered}"
            wire.trap = Trap(answered=answered, spring=lambda: None)
            lost = post(stock, content, name)
            assert (lost.status_code, lost.json()["code"]) == (503, "write_outcome_unknown")
            assert REPLAYED in until_free(workers[1], content, name).headers or not answered
            assert vouchers(content) == 1
        content = voucher()
        wire.trap = Trap(answered=True, spring=partial(kill_worker, stock))
        with pytest.raises(httpx.TransportError):
            post(stock, content, key)
        assert post(workers[1], content, key).headers[REPLAYED] == "true"
        assert vouchers(content) == 1
        assert (
            post(stock, content, key).headers[REPLAYED] == "true"
        )  # by the next worker, which a stop can end in order
