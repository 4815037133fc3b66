"""A worker that grows too large is replaced, and one that blocks says what blocks it."""

import json
import os
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.e2e.test_draining import Client, load, wait_for_answers
from tests.ops.telemetry.conftest import Instrumented, Start, eventually, processes, start
from tests.service import PATIENCE

__all__ = ["start"]

SETTINGS = "tests.e2e.worker_settings"
LIMIT, MUCH = 250, 200  # MiB; a worker has 100 when it starts
REPLACED = "This worker is replaced"


def lines(running: Instrumented, text: str) -> list[dict[str, Any]]:
    logged = map(json.loads, running.service.log.read_text().splitlines())
    return [line for line in logged if text in line["event"]]


def connect(running: Instrumented) -> httpx.Client:
    return httpx.Client(base_url=running.client.base_url, timeout=PATIENCE)


def eat(client: httpx.Client) -> int:
    """Let the worker of a connection grow beyond its limit; returns its pid."""
    return int(client.get(f"/eat/{MUCH}").text)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_over_its_memory_limit_is_replaced_and_cuts_nothing(
    start: Start, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under keep-alive load, with a request under way that takes longer than the rest of the drain."""
    monkeypatch.setattr("tests.e2e.test_draining.TARGETS", ["/livez", "/api/openapi.json"])
    running = start(
        workers, DJANGO_SETTINGS_MODULE=SETTINGS, WORKER_MEMORY_LIMIT=str(LIMIT), SERVES_SECONDS="0"
    )
    with load(running.service.address) as clients, connect(running) as other:
        wait_for_answers(clients)
        long = Client(running.service.address, "/wait/2500", 0.0)
        long.thread.start()
        grown = eat(other)
        eventually(lambda: grown not in running.workers)
        eventually(lambda: len(running.workers) == workers)
        wait_for_answers(clients)
        long.done.set()
        long.thread.join(PATIENCE)
    seen = sum((client.seen for client in [*clients, long]), Counter[str]())
    assert seen.keys() <= {"200", "told"}, seen
    assert seen["told"] or workers > 1  # of two workers, the other one may have all clients
    eventually(lambda: running.scrapes('gunicorn_worker_exits_total{reason="memory"}', 1))
    eventually(lambda: running.scrapes("gunicorn_workers", workers))
    assert 30 << 20 < running.scrape()["worker_resident_memory_bytes"] < LIMIT << 20
    (line,) = lines(running, REPLACED)
    assert (line["pid"], line["level"]) == (grown, "warning")
    assert f"WORKER_MEMORY_LIMIT is {LIMIT}" in line["event"]


def test_workers_over_their_limit_go_one_at_a_time(start: Start) -> None:
    running = start(3, DJANGO_SETTINGS_MODULE=SETTINGS, WORKER_MEMORY_LIMIT=str(LIMIT), SERVES_SECONDS="0")
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        by_worker: dict[int, httpx.Client] = {}
        while len(by_worker) < 2:
            client = stack.enter_context(connect(running))
            by_worker[int(client.get("/wait/1").text)] = client
        (spared,) = {*running.workers} - by_worker.keys()
        grown = {*threads.map(eat, by_worker.values())}
    fewest = 3

    def are_replaced() -> bool:
        nonlocal fewest
        workers = running.workers
        fewest = min(fewest, len(workers))
        return len(workers) == 3 and not grown & {*workers}

    eventually(are_replaced)
    assert fewest == 3
    assert spared in running.workers
    one, two = sorted(lines(running, REPLACED), key=lambda line: line["timestamp"])
    assert {one["pid"], two["pid"]} == grown
    ends = {line["pid"]: line["timestamp"] for line in lines(running, "Finished server process")}
    assert ends[one["pid"]] < two["timestamp"]


BLOCKED = "The event loop is blocked"


def culprit(line: dict[str, Any]) -> str:
    """The innermost function of the module with the harmful views, in a stack like that of a traceback."""
    frames = [frame for frame in line["stack"].splitlines() if "tests/e2e/worker_urls.py" in frame]
    return str(frames[-1].rpartition(", in ")[2])


def test_workers_end_with_gunicorns_first_process(start: Start) -> None:
    """A request that is under way is answered; then the port is free for the next one."""
    running = start(2, DJANGO_SETTINGS_MODULE=SETTINGS)
    workers = running.workers
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(httpx.get, f"{running.client.base_url}/wait/1500", timeout=PATIENCE)
        eventually(lambda: running.scrapes("http_requests_in_flight", 1))
        running.service.process.kill()
        assert answer.result().status_code == 200
    eventually(lambda: not {*workers} & processes().keys())
    assert len(lines(running, "first process is gone")) == 2


def test_the_stack_of_what_blocks_the_loop(start: Start) -> None:
    running = start(DJANGO_SETTINGS_MODULE=SETTINGS)
    with connect(running) as client:
        client.get("/sleep/1500")
        (line,) = lines(running, BLOCKED)
    assert culprit(line) == "sleep"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="a task does not tell its context: no route is known")
def test_what_blocks_the_loop_is_one_line_a_route(start: Start) -> None:
    """Once a route, with a count of the blocks since the last line."""
    running = start(DJANGO_SETTINGS_MODULE=SETTINGS, SAME_BLOCK_SECONDS="5")
    (worker,) = running.workers
    with connect(running) as client:
        ids = [client.get(path).headers["X-Request-ID"] for path in ["/spin/2000", *["/sleep/2000"] * 4]]
        spun, slept, again = lines(running, BLOCKED)
        os.kill(worker, signal.SIGSTOP)  # that blocks no code of its own
        time.sleep(1.5)
        os.kill(worker, signal.SIGCONT)
        client.get("/wait/600")
    assert [line["request_id"] for line in (spun, slept, again)] == [ids[0], ids[1], ids[4]]
    assert [line["blocks"] for line in (spun, slept, again)] == [1, 1, 3]
    assert (spun["method"], spun["route"]) == ("GET", "/spin/{milliseconds}")
    assert culprit(spun) in {"spin", "count_in_vain"}
    assert culprit(slept) == "sleep"
    assert all(line["seconds"] >= 1.0 for line in (spun, slept, again))
    eventually(lambda: running.scrape()["event_loop_blocks_total"] >= 6)  # the machine may stop it once more
    assert len(lines(running, BLOCKED)) == 3


def test_a_limit_that_each_worker_exceeds_replaces_none_in_its_first_minute(start: Start) -> None:
    running = start(1, DJANGO_SETTINGS_MODULE=SETTINGS, WORKER_MEMORY_LIMIT="1")
    eventually(lambda: running.scrapes("gunicorn_workers", 1))
    eventually(lambda: running.scrape()["worker_resident_memory_bytes"] > 1 << 20)
    assert not lines(running, REPLACED)
