"""The worker's own metrics are what prometheus_client would have made of the same observations."""

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from ops.telemetry import request_stats
from ops.telemetry.metrics import BOUNDS_SECONDS, MAX_SERIES, OTHER, Registry
from ops.telemetry.stopwatch import UNMATCHED
from ops.telemetry.store import Store


def scrape(directory: Path) -> dict[str, Any]:
    """The samples by name and labels, as they are exposed."""
    registry = prometheus_client.CollectorRegistry()
    MultiProcessCollector(registry, str(directory))
    return samples(registry)


def write(directory: Path, slot: str, registry: Registry) -> None:
    with closing(Store(directory, slot)) as store:
        store.write(registry.metrics)


def samples(registry: prometheus_client.CollectorRegistry) -> dict[str, Any]:
    text = prometheus_client.generate_latest(registry).decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines if "_created" not in name}


def test_a_histogram_is_prometheus_clients(tmp_path: Path) -> None:
    registry, theirs = Registry(), prometheus_client.CollectorRegistry()
    ours = registry.histogram("seconds", "Text.", "a").labels('va"l\\ue')
    named = prometheus_client.Histogram("seconds", "Text.", ["a"], buckets=BOUNDS_SECONDS, registry=theirs)
    generator = random.Random(1)  # noqa: S311  not for secrets
    for seconds in [0.0, *BOUNDS_SECONDS, 2.0, *(generator.expovariate(100) for _ in range(500))]:
        ours.observe(seconds)
        named.labels('va"l\\ue').observe(seconds)
    write(tmp_path, "1", registry)
    assert scrape(tmp_path) == pytest.approx(samples(theirs))


def test_workers_are_added_up(tmp_path: Path) -> None:
    for slot, value in [("1", 3), ("2", 5)]:
        registry = Registry()
        registry.counter("a_total", "Text.", "k").labels("x").value = value
        for over in ("sum", "min", "max"):
            registry.gauge(f"gauge_{over}", "Text.", over=over).labels().value = value
        write(tmp_path, slot, registry)
    assert scrape(tmp_path) == {
        'a_total{k="x"}': 8,
        "gauge_sum": 8,
        "gauge_min": 3,
        "gauge_max": 5,
    }


def test_only_what_has_changed_is_written(tmp_path: Path) -> None:
    registry = Registry()
    count = registry.counter("a_total", "Text.").labels()
    with closing(Store(tmp_path, "1")) as store:
        for value in (1, 1, 4):
            count.value = value
            store.write(registry.metrics)
            assert scrape(tmp_path) == {"a_total": value}


def test_the_next_worker_of_a_slot_counts_on(tmp_path: Path) -> None:
    files: list[set[Path]] = []
    for death in range(3):
        registry = Registry()
        counter = registry.counter("a_total", "Text.").labels()
        histogram = registry.histogram("seconds", "Text.").labels()
        gauge = registry.gauge("now", "Text.").labels()
        with closing(Store(tmp_path, "7")) as store:
            for _ in range(2):
                counter.value += 5
                histogram.observe(0.0001)
                gauge.value = 2
                store.write(registry.metrics)
        found = scrape(tmp_path)
        total = (death + 1) * 2
        assert (found["a_total"], found["seconds_count"], found["now"]) == (total * 5, total, 2)
        mark_process_dead("7", str(tmp_path))
        assert "now" not in scrape(tmp_path)
        files.append({*tmp_path.iterdir()})
    assert files[0] == files[2]


def test_a_directory_without_room_is_an_error_not_a_signal(tmp_path: Path) -> None:
    registry = Registry()
    registry.counter("a_total", "Text.").labels().value = 1
    (tmp_path / "counter_1.db").mkdir()
    with pytest.raises(OSError, match="directory"):
        write(tmp_path, "1", registry)


def test_series_are_bounded() -> None:
    registry = Registry()
    metric = registry.counter("a_total", "Text.", "x", "y")
    for number in range(MAX_SERIES + 10):
        metric.labels(str(number), "y").value += 1
    assert len(metric.series) == MAX_SERIES + 1
    assert metric.labels(OTHER, OTHER).value == 10
    with pytest.raises(ValueError, match="labels"):
        metric.labels("one")


@pytest.mark.parametrize(
    ("pattern", "template"),
    [
        ("api/products", "/api/products"),
        ("api/products/<id:product_id>", "/api/products/{product_id}"),
        ("a/<str:b>/<int:c>/d", "/a/{b}/{c}/d"),
        ("a/<b>", "/a/{b}"),
        ("/livez", "/livez"),
        (UNMATCHED, UNMATCHED),
    ],
)
def test_routes_are_spelled_as_in_openapi(pattern: str, template: str) -> None:
    assert request_stats.route(pattern).template == template


def test_routes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_stats, "MAX_ROUTES", len(request_stats._routes))
    assert request_stats.route("one/too/many") is request_stats.route(UNMATCHED)


def test_methods_are_bounded() -> None:
    route = request_stats.route("bounded")
    assert request_stats.durations(route, "PURGE").method == OTHER
    assert request_stats.durations(route, "SPACEJUMP") is request_stats.durations(route, OTHER)
    assert request_stats.durations(route, "GET").method == "GET"


def test_a_cache_hit_is_one_stage() -> None:
    route = request_stats.route("hit")
    answers = request_stats.durations(route, "GET")
    for _ in range(3):
        request_stats.record(answers, 200, 0.0004)
    request_stats.count()
    assert request_stats.REQUESTS.labels("/hit", "GET", "200").value == 3
    for series in (
        request_stats.DURATION.labels("/hit", "GET", "200"),
        request_stats.STAGE.labels("/hit", "cache"),
    ):
        assert (series.counts[1], sum(series.counts)) == (3, 3)
        assert series.sum == pytest.approx(0.0012)
