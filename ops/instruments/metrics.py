"""Counters, gauges and histograms that cost what an attribute costs.

    HITS = metrics.counter("page_cache_requests_total", "Reads of the page cache.", "page", "outcome")
    hits = HITS.labels("products", "hit")     # once
    hits.value += 1                           # 30 ns, in any request

    metrics.register(sample)                  # called before each flush, to set what is only looked at then

prometheus_client's own take 1 to 5 us in multiprocess mode, since each writes through to a shared file. These
are the worker's own memory; ops/instruments/recorder.py writes them out once a second. They belong to the event
loop's thread: two threads that add to one value at once may lose one of the two.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

# Seconds. Every histogram has these: what a budget of 10 ms is about needs most of them below it.
BOUNDS = (
    *(0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.010),
    *(0.015, 0.025, 0.050, 0.100, 0.250, 1.0),
)
# Combinations of label values that a metric keeps. Labels come from code and from routes; this bounds a mistake.
MOST_SERIES = 500
OTHER = "other"  # every label of what comes beyond it


class Number:
    """Of a counter, which only grows, or of a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


S = TypeVar("S", Number, Histogram)


class Metric(Generic[S]):
    """All series of one name, by the values of their labels."""

    def __init__(self, series: type[S], kind: str, name: str, text: str, names: tuple[str, ...]) -> None:
        self.kind, self.name, self.text, self.names = kind, name, text, names
        self.series: dict[tuple[str, ...], S] = {}
        self._new: type[S] = series

    def labels(self, *values: str) -> S:
        """The series with these values, in the order of the names; raises ValueError for too few or many."""
        found = self.series.get(values)
        if found is None:
            if len(values) != len(self.names):
                raise ValueError(f"{self.name} has the labels {self.names}, not {len(values)} of them")
            if len(self.series) >= MOST_SERIES:
                values = (OTHER,) * len(values)
            found = self.series.setdefault(values, self._new())
        return found


class Registry:
    """The metrics of one kind of process."""

    def __init__(self) -> None:
        self.metrics: list[Metric[Number] | Metric[Histogram]] = []
        self.samplers: list[Callable[[], object]] = []

    def counter(self, name: str, text: str, *labels: str) -> Metric[Number]:
        """`name` ends in _total."""
        return self._add(Metric(Number, "counter", name, text, labels))

    def gauge(
        self, name: str, text: str, *labels: str, over: Literal["sum", "min", "max"] = "sum"
    ) -> Metric[Number]:
        """`over`: what the workers' values make together. Those of a dead worker are gone."""
        return self._add(Metric(Number, f"gauge_live{over}", name, text, labels))

    def histogram(self, name: str, text: str, *labels: str) -> Metric[Histogram]:
        return self._add(Metric(Histogram, "histogram", name, text, labels))

    def register(self, sampler: Callable[[], object]) -> None:
        """`sampler` is called before each flush, about once a second, on the event loop: it must be quick."""
        self.samplers.append(sampler)

    def _add(self, metric: Metric[S]) -> Metric[S]:
        self.metrics.append(metric)
        return metric


metrics = Registry()  # of a worker
