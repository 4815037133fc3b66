"""What a load balancer and a monitor see of a real service."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from django.conf import settings

from tests.ops.telemetry.conftest import Start, eventually
from tests.service import PATIENCE, Service
from tests.wiretap import Wiretap

PROBES = ["/livez", "/readyz", "/healthz"]


@pytest.mark.parametrize("path", PROBES)
def test_a_probe(api: httpx.Client, path: str) -> None:
    answer, head = (
        api.get(path, headers={"Host": "10.1.2.3:8000"}),
        api.head(path, headers={"Host": "10.1.2.3"}),
    )
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    assert answer.headers["Cache-Control"] == head.headers["Cache-Control"] == "no-store"
    assert answer.json()["status"] in {"ok", "ready"}
    refused = api.post(path)
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    assert refused.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "request_line", [b"OPTIONS %b HTTP/1.0", b"GET %b HTTP/1.0", b"HEAD %b HTTP/1.0", b"OPTIONS %b HTTP/1.1"]
)
@pytest.mark.parametrize("host", [b"", b"Host: haproxy\r\n", b"Host:\r\n"])
@pytest.mark.parametrize("path", PROBES)
def test_a_probe_as_balancers_ask(service: Service, path: str, request_line: bytes, host: bytes) -> None:
    with socket.create_connection(service.address, PATIENCE) as connection:
        connection.sendall(request_line % path.encode() + b"\r\n" + host + b"Connection: close\r\n\r\n")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_line",
    [b"OPTIONS / HTTP/1.0", b"OPTIONS / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.0"],
)
def test_a_balancer_that_was_told_no_path(service: Service, request_line: bytes) -> None:
    """HAProxy's `option httpchk` without anything behind it."""
    with socket.create_connection(service.address, PATIENCE) as connection:
        connection.sendall(request_line + b"\r\nConnection: close\r\n\r\n")
        answer = connection.recv(1024)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ncache-control: no-store\r\n" in answer


def test_other_requests_for_the_root_are_no_probes(api: httpx.Client) -> None:
    assert api.get("/").status_code == 404
    preflight = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}
    assert api.options("/", headers=preflight).status_code == 404


def test_health_names_what_it_asked(api: httpx.Client) -> None:
    report = api.get("/healthz").json()
    assert report.keys() == {"status", "runtime", "postgres", "redis"}
    assert report["runtime"] == settings.RUNTIME
    for name in ("postgres", "redis"):
        assert report[name]["status"] == "ok"
        assert report[name]["milliseconds"] > 0


def test_many_who_ask_for_health_cost_one_question_a_second(service: Service, wiretap: Wiretap) -> None:
    wiretap.clear()
    with ThreadPoolExecutor(8) as people:
        codes = [*people.map(lambda _: service.client.get("/healthz").status_code, range(200))]
    assert codes == [200] * 200
    asked = sum(sql == "SELECT 1" for sql, _ in wiretap.bound)
    assert asked < 20  # 200 answers take much less than 20 s


@pytest.mark.parametrize("path", PROBES[:2])
def test_the_other_probes_ask_nobody(service: Service, wiretap: Wiretap, path: str) -> None:
    wiretap.clear()
    assert service.client.get(path).status_code == 200
    assert not wiretap.messages


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_what_is_down_is_named(start: Start, silent: int) -> None:
    running = start(
        DATABASE_URL=f"postgresql://u:s3cret@127.0.0.1:{silent}/d",
        REDIS_URL=f"redis://:s3cret@127.0.0.1:{silent}/0",
    )
    answer = running.client.get("/healthz")
    assert answer.status_code == 503
    report = answer.json()
    assert (report["status"], report["postgres"]["status"], report["redis"]["status"]) == ("failed",) * 3
    assert "127.0.0.1" not in answer.text
    assert [running.client.get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]


def test_what_is_up_is_told_beside_it(start: Start) -> None:
    answer = start(REDIS_URL="redis://127.0.0.1:1/0").client.get("/healthz")
    assert answer.status_code == 503
    assert (answer.json()["postgres"]["status"], answer.json()["redis"]["status"]) == ("ok", "failed")


def test_draining(start: Start) -> None:
    """From SIGTERM on not ready, and still there: for the request under way, and for new ones."""
    running = start(DRAIN_SECONDS="300")
    assert running.client.get("/readyz").json() == {"status": "ready"}
    with under_way(running.service) as client:
        running.service.process.send_signal(signal.SIGTERM)
        eventually(lambda: running.client.get("/readyz").status_code == 503)
        assert running.client.get("/readyz").json() == {"status": "draining"}
        for worker in running.workers:
            os.kill(worker, signal.SIGTERM)  # again, as gunicorn does: it stays patient
        later = time.monotonic() + 0.5  # uvicorn looks every 0.1 s whether it is to stop
        while time.monotonic() < later:
            assert httpx.get(f"{running.client.base_url}/livez", timeout=PATIENCE).status_code == 200
        assert finish(client).startswith(b"HTTP/1.1 200 ")
    running.service.process.send_signal(signal.SIGINT)  # no more patience
    assert running.service.process.wait(PATIENCE) == 0


def test_a_stop_without_a_drain_finishes_what_is_under_way(start: Start) -> None:
    running = start()
    with under_way(running.service) as client:
        running.service.process.send_signal(signal.SIGTERM)
        running.service.wait_for(b"Waiting for connections to close")
        assert finish(client).startswith(b"HTTP/1.1 200 ")
    assert running.service.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_is_quick(start: Start, number: int) -> None:
    """Sent to gunicorn alone, and without a drain: SIGKILL would come after 25 s more than the drain."""
    running = start(DRAIN_SECONDS="300")
    running.client.get("/livez")
    running.service.process.send_signal(number)
    assert running.service.process.wait(20) == 0
    assert b"SIGKILL" not in running.service.log.read_bytes()


@contextmanager
def under_way(service: Service) -> Iterator[socket.socket]:
    """A request that the service has begun to read, and that ends when its body does."""
    head = b"GET /api/openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(service.address, PATIENCE) as client:
        client.sendall(head)
        assert client.recv(1000).startswith(b"HTTP/1.1 100 Continue")
        yield client


def finish(client: socket.socket) -> bytes:
    client.sendall(b"body")
    return client.recv(10_000)
