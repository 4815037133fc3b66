"""Metrics of a real service, whose processes are stopped and killed."""

import os
import signal
import socket
import stat
import sys
from pathlib import Path

import httpx
import pytest

from ops.gunicorn import exporter
from ops.gunicorn.exporter import FRESH_SECONDS, MAX_CONNECTIONS, MAX_HEAD_BYTES, SCRAPE_SECONDS, Exporter
from tests.chaos import LONG
from tests.ops.telemetry.conftest import Instrumented, Start, eventually, processes
from tests.service import PATIENCE

LIVE = 'http_requests_total{method="GET",route="/livez",status="200"}'
DIED = 'gunicorn_worker_exits_total{reason="died"}'


def ended(client: socket.socket) -> bool:
    """Wait until the other side has closed or reset the connection."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def get(running: Instrumented, path: str = "/metrics", method: str = "GET") -> httpx.Response:
    return httpx.request(method, f"http://127.0.0.1:{running.port}{path}", timeout=PATIENCE)


def visit(running: Instrumented) -> None:
    """A request over a connection that nobody keeps: its worker may be killed."""
    httpx.get(f"{running.client.base_url}/livez", timeout=PATIENCE)


def test_what_is_exposed(start: Start) -> None:
    running = start(workers=2, REVISION="abc123")
    for path in ("/livez", "/livez", "/api/products/1", "/nothing", "/api/openapi.json"):
        running.client.get(path)
    eventually(lambda: running.scrapes(LIVE, 2))
    eventually(lambda: running.scrapes("gunicorn_workers", 2))
    samples = running.scrape()
    names = {name.partition("{")[0] for name in samples}
    assert names >= {
        *("http_requests_total", "http_requests_in_flight", "http_request_duration_seconds_bucket"),
        *("http_request_stage_seconds_bucket", "postgres_pool_connections", "postgres_pool_waiting"),
        *("postgres_pool_wait_seconds_bucket", "postgres_pool_checkouts_total", "postgres_pool_max"),
        *("python_gc_pause_seconds_bucket", "event_loop_lag_seconds_bucket", "gunicorn_workers"),
        *("build_info", "problems_total"),
    }
    (build,) = (name for name in samples if name.startswith("build_info"))
    assert 'revision="abc123"' in build
    assert samples['http_request_duration_seconds_count{method="GET",route="/livez",status="200"}'] == 2
    assert any('route="/api/products/{product_id}"' in name for name in samples)
    assert samples['http_requests_total{method="GET",route="unmatched",status="404"}'] == 1
    assert samples['problems_total{code="not_found"}'] == 1
    # From 0 on, or Prometheus would not see the first ones.
    assert samples[DIED] == 0
    assert samples['http_requests_total{method="GET",route="/api/products/{product_id}",status="503"}'] == 0
    assert samples['postgres_pool_max{pool="native"}'] == 14


def merged_at(running: Instrumented) -> str:
    return str(get(running).headers["Date"])


def test_the_files_are_read_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often they are asked for."""
    now, read = 1000.0, []

    def merge(_: object) -> bytes:
        read.append(now)
        return b"%d\n" % len(read)

    monkeypatch.setattr("ops.gunicorn.exporter.time.monotonic", lambda: now)
    monkeypatch.setattr(exporter, "generate_latest", merge)
    one, scrape = Exporter(tmp_path), b"GET /metrics HTTP/1.1\r\n\r\n"
    answers = [one.response(scrape) for _ in range(50)]
    now += FRESH_SECONDS
    assert {*answers} != {one.response(scrape)}
    assert read == [1000.0, now]
    assert len({*answers}) == 1


def test_the_protocol(start: Start) -> None:
    running = start()
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    scraped, head = get(running), get(running, method="HEAD")
    assert scraped.headers["Content-Type"].startswith("text/plain; version=")
    assert (head.status_code, head.content) == (200, b"")
    assert get(running, "/metrics?name=x").status_code == 200
    assert get(running, "/").status_code == 404
    assert get(running, method="POST").status_code == 405
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n")  # no content follows the head
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE) as client:
        client.sendall(b"x" * (2 * MAX_HEAD_BYTES))
        assert ended(client)


def test_connections_are_bounded_in_number_and_time(start: Start) -> None:
    running = start()
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    address = ("127.0.0.1", running.port)
    idle = [socket.create_connection(address, SCRAPE_SECONDS + PATIENCE) for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(httpx.TransportError):
        get(running)
    for client in idle:
        with client:
            assert ended(client)  # by the deadline
    assert get(running).status_code == 200


@pytest.mark.chaos("worker SIGKILL")
def test_counters_outlive_their_workers(start: Start) -> None:
    """No counter ever decreases: a SIGKILL takes a second of counts at most, and nothing that was scraped before."""
    running = start(workers=4)
    eventually(lambda: running.scrapes("gunicorn_workers", 4))
    visit(running)
    eventually(lambda: running.scrapes(LIVE, 1))
    files, before = {*running.directory.iterdir()}, running.scrape()
    counters = [
        name for name in before if name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))
    ]
    dying: list[int] = []
    deaths = 0

    def replaced() -> bool:
        workers = running.workers
        return len(workers) == 4 and not {*dying} & {*workers}

    while deaths < (100 if LONG else 20):
        dying = running.workers
        deaths += len(dying)
        visit(running)
        for pid in dying:
            os.kill(pid, signal.SIGKILL)
        eventually(replaced)
        after = running.scrape()
        assert not [name for name in counters if after[name] < before[name]]
        before = after
    eventually(lambda: running.scrapes(DIED, deaths))
    counted = running.scrape()[LIVE]
    visit(running)
    eventually(lambda: running.scrapes(LIVE, counted + 1))
    arbiters = {file for file in running.directory.iterdir() if "arbiter" in file.name}
    assert {*running.directory.iterdir()} - arbiters == files - arbiters
    assert len(running.scrape()) <= len(before) + 5  # the same series: what is merged does not grow


def test_a_scrape_touches_no_worker(start: Start) -> None:
    running = start(workers=2)
    eventually(lambda: running.scrapes("gunicorn_workers", 2))
    running.client.get("/livez")
    eventually(lambda: running.scrapes(LIVE, 1))
    workers = running.workers
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        before = merged_at(running)
        eventually(lambda: merged_at(running) != before)
        assert running.scrapes(LIVE, 1)
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


def test_the_gauges_of_a_dead_worker_go(start: Start) -> None:
    running = start(workers=2)
    most = 'postgres_pool_max{pool="native"}'
    eventually(lambda: running.scrapes(most, 14))
    os.kill(running.pid, signal.SIGTTOU)  # one worker less
    eventually(lambda: running.scrapes(most, 7))
    eventually(lambda: running.scrapes('gunicorn_worker_exits_total{reason="stopped"}', 1))
    eventually(lambda: running.scrapes("gunicorn_workers", 1))


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGSEGV, "died"), (signal.SIGKILL, "died"), (signal.SIGSTOP, "timeout")]
)
def test_why_a_worker_ended(start: Start, number: int, reason: str) -> None:
    running = start(GUNICORN_CMD_ARGS="--timeout 3")
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    os.kill(running.workers[0], number)
    eventually(lambda: running.scrapes(f'gunicorn_worker_exits_total{{reason="{reason}"}}', 1))


def test_the_exporter_is_started_again(start: Start) -> None:
    running = start()
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    (first,) = running.exporters
    os.kill(first, signal.SIGKILL)
    eventually(
        lambda: running.exporters not in ([], [first]) and running.scrapes("gunicorn_workers", 1)
    )  # after five seconds


def test_the_exporter_dies_with_the_arbiter(start: Start) -> None:
    running = start()
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    (exporter,), workers = running.exporters, running.workers
    try:
        os.kill(running.pid, signal.SIGKILL)
        running.service.process.wait(PATIENCE)
        eventually(lambda: exporter not in processes())
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="the directory is read from /proc")
def test_nothing_is_left_of_a_service_that_stops(start: Start, tmp_path: Path) -> None:
    running = start(PROMETHEUS_MULTIPROC_DIR="", TMPDIR=str(tmp_path))
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    (exporter,) = running.exporters
    files = Path(f"/proc/{exporter}/environ").read_bytes().split(b"PROMETHEUS_MULTIPROC_DIR=")[1]
    directory = Path(files.split(b"\0")[0].decode())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    running.service.process.terminate()
    assert running.service.process.wait(PATIENCE) == 0
    assert not directory.exists()
    assert not {running.pid, exporter} & processes().keys()


def test_the_directory_is_emptied_at_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "counter_old.db").write_bytes(b"not a file of metrics")
    (tmp_path / "metrics" / "note.txt").write_text("somebody else's")
    running = start()
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    assert not (running.directory / "counter_old.db").exists()
    assert (running.directory / "note.txt").exists()


def test_a_port_in_use_is_one_line_and_stops_nothing(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start(METRICS_PORT=str(port))
        running.service.wait_for(b"No metrics: METRICS_PORT %d cannot be used" % port)
        assert running.client.get("/livez").status_code == 200
    running.port = port
    eventually(lambda: running.scrapes("gunicorn_workers", 1))  # once it is free
    assert running.service.log.read_text().count("No metrics") == 1


def test_a_directory_that_cannot_be_written_is_one_line_and_stops_nothing(start: Start) -> None:
    running = start(PROMETHEUS_MULTIPROC_DIR="/dev/null/metrics")
    assert running.client.get("/livez").status_code == 200
    assert running.service.log.read_text().count("No metrics") == 1
    assert not running.exporters


def test_without_a_port_there_is_no_exporter(start: Start) -> None:
    running = start(METRICS_PORT="0")
    assert running.client.get("/livez").status_code == 200
    assert not running.exporters
