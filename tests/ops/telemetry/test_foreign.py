"""prometheus_client's own metrics are exposed as it would itself, over all workers, and bounded."""

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.multiprocess import mark_process_dead

from ops.telemetry.foreign import Foreign
from ops.telemetry.metrics import MAX_SERIES, Registry
from ops.telemetry.store import Store
from tests.ops.gunicorn.test_exporter import visit
from tests.ops.telemetry.conftest import Start, eventually
from tests.ops.telemetry.test_metrics import samples, scrape


class Worker:
    """A process with metrics of its own, which `flush` writes into a slot's files."""

    def __init__(self, directory: Path, slot: str) -> None:
        self.directory, self.slot = directory, slot
        self.registry = CollectorRegistry()
        self.foreign = Foreign(self.registry)

    def flush(self) -> None:
        with closing(Store(self.directory, self.slot)) as store:
            for _ in range(2):  # what is written twice is not more
                self.foreign.copy()
                store.write(self.foreign.metrics)


def test_one_worker_is_what_prometheus_client_exposes(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "1-0")
    beside: Any = {"registry": worker.registry}
    Counter("plain", "Text.", **beside).inc(3)
    Counter("app_named_total", "Text.", ["a", "b"], **beside).labels("x", 'q"\\').inc()
    Gauge("level", "Text.", ["a"], multiprocess_mode="livesum", **beside).labels("x").set(-2)
    summary = Summary("times_seconds", "Text.", ["a"], **beside)
    histogram = Histogram("sizes", "Text.", ["le_", "a"], buckets=(1, 2.5, 10), **beside)
    for value in (0.5, 2, 2, 7, 100):
        summary.labels("x").observe(value)
        histogram.labels("x", "y").observe(value)
        histogram.labels("z", "y").observe(2 * value)
    Info("release", "Text.", **beside).info({"version": "1", "arch": "a"})
    Enum("state", "Text.", states=["up", "down"], **beside).state("down")
    worker.flush()
    assert scrape(tmp_path) == samples(worker.registry)


def test_workers_are_added_up_and_the_dead_counted_on(tmp_path: Path) -> None:
    for slot, value in (("1-0", 3), ("1-1", 5), ("1-1", 7)):
        worker = Worker(tmp_path, slot)
        Counter("c", "Text.", registry=worker.registry).inc(value)
        Histogram("h", "Text.", buckets=(4,), registry=worker.registry).observe(value)
        for mode in ("sum", "livemin", "max", "mostrecent", "all"):
            Gauge(f"g_{mode}", "Text.", multiprocess_mode=mode, registry=worker.registry).set(value)
        worker.flush()
    assert scrape(tmp_path) == {
        "c_total": 15,
        "h_sum": 15,
        "h_count": 3,
        'h_bucket{le="4.0"}': 1,
        'h_bucket{le="+Inf"}': 3,
        "g_sum": 10,
        "g_livemin": 3,
        "g_max": 7,
        "g_mostrecent": 7,
        'g_all{pid="1-0"}': 3,
        'g_all{pid="1-1"}': 7,
    }
    mark_process_dead("1-1", str(tmp_path))
    left = scrape(tmp_path)
    assert (left["c_total"], left["g_sum"], 'g_all{pid="1-1"}' in left) == (15, 3, False)


def test_series_are_bounded(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "1-0")
    counter = Counter("c", "Text.", ["a"], registry=worker.registry)
    histogram = Histogram("h", "Text.", ["a"], buckets=(1, 2), registry=worker.registry)
    for number in range(MAX_SERIES + 10):
        counter.labels(str(number)).inc(2)
        histogram.labels(str(number)).observe(1.5)
    worker.flush()
    exposed = scrape(tmp_path)
    assert exposed['c_total{a="other"}'] == 20
    assert exposed['h_bucket{a="other",le="2.0"}'] == exposed['h_count{a="other"}'] == 10
    assert sum(name.startswith("c_total") for name in exposed) == MAX_SERIES + 1


def test_a_name_of_ours_is_refused() -> None:
    theirs = CollectorRegistry()
    ours = Registry(theirs)
    ours.counter("requests_total", "Text.")
    ours.histogram("seconds", "Text.")
    ours.gauge("level", "Text.")
    for name in ("requests_total", "seconds", "seconds_count", "level"):
        with pytest.raises(ValueError, match="Duplicated timeseries"):
            Gauge(name, "Text.", registry=theirs)


def test_a_service_exposes_them(start: Start) -> None:
    """Though PROMETHEUS_MULTIPROC_DIR is set, at which prometheus_client would write files of its own."""
    running = start(2, application="tests.ops.telemetry.counting:application")
    visits = 'library_visits_total{path="/livez"}'
    for _ in range(20):
        visit(running)
    eventually(lambda: running.scrapes(visits, 20))
    exposed = running.scrape()
    assert exposed["library_sizes_sum"] == 100
    assert exposed['library_sizes_bucket{le="10.0"}'] == exposed["library_times_count"] == 20
    assert exposed['library_info{version="1.2"}'] == 1
    assert exposed["library_pid"] in running.workers
    dying = running.workers
    for pid in dying:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(running.workers) == 2 and not {*dying} & {*running.workers})
    visit(running)
    eventually(lambda: running.scrapes(visits, 21), 20)
