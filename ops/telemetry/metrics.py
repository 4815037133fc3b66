"""Counters, gauges and histograms at the cost of an attribute.

    HITS = metrics.counter("page_cache_requests_total", "Reads of the page cache.", "page", "outcome")
    hits = HITS.labels("products", "hit")     # once
    hits.value += 1                           # 30 ns, in any request

    metrics.register(sample)                  # called before each flush, to set values that are sampled

Those of prometheus_client take 1 to 5 us in multiprocess mode, since each change writes to a shared file. These are
in the worker's own memory; ops/telemetry/recorder.py writes them to files once a second, together with those of
prometheus_client (ops/telemetry/foreign.py). Change them in the event loop's thread only: if two threads add to one
value at once, one addition may be lost.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import prometheus_client
from prometheus_client import values

# prometheus_client's are in memory, too, whether or not PROMETHEUS_MULTIPROC_DIR is set.
values.ValueClass = values.MutexValue

logger = logging.getLogger(__name__)

# The buckets of every histogram, in seconds. Most are below the budget of 10 ms, to resolve it.
BOUNDS_SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.010),
    *(0.015, 0.025, 0.050, 0.100, 0.250, 1.0),
)
# Combinations of label values that a metric keeps. Labels come from code and from routes; this bounds a mistake. 200
# routes may have ten pairs of method and status each; a histogram of that size takes 6 MB.
MAX_SERIES = 2000
OTHER = "other"  # the value of all labels in a combination beyond MAX_SERIES


class Number:
    """The value of a counter, which only grows, or of a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum += seconds


S = TypeVar("S", Number, Histogram)


class Metric(Generic[S]):
    """All series of one name, by the values of their labels."""

    def __init__(
        self, series: type[S], kind: str, name: str, text: str, names: tuple[str, ...], *, family: str = ""
    ) -> None:
        """`family` is the name without the suffix of its kind."""
        self.kind, self.name, self.text, self.names = kind, name, text, names
        self.family = family or name.removesuffix("_total")
        self.series: dict[tuple[str, ...], S] = {}
        self._new: type[S] = series

    def labels(self, *values: str) -> S:
        """Return the series with these values, in the order of the names. Raises ValueError for too few or many."""
        found = self.series.get(values)
        if found is None:
            if len(values) != len(self.names):
                raise ValueError(f"{self.name} has the labels {self.names}, not {len(values)} of them")
            if len(self.series) >= MAX_SERIES:
                values = (OTHER,) * len(values)
                if values not in self.series:
                    logger.warning(
                        "%s has %d series: what is new is %r from now on", self.name, MAX_SERIES, OTHER
                    )
            found = self.series.setdefault(values, self._new())
        return found


class Registry:
    """The metrics of one kind of process.

    Their names are taken in `beside`: for another metric of such a name, prometheus_client raises ValueError.
    """

    def __init__(self, beside: prometheus_client.CollectorRegistry | None = None) -> None:
        self._beside = beside
        self.metrics: list[Metric[Number] | Metric[Histogram]] = []
        self.samplers: list[Callable[[], object]] = []

    def counter(self, name: str, text: str, *labels: str) -> Metric[Number]:
        """Make a counter. `name` ends in _total."""
        return self._add(Metric(Number, "counter", name, text, labels))

    def gauge(
        self, name: str, text: str, *labels: str, over: Literal["sum", "min", "max"] = "sum"
    ) -> Metric[Number]:
        """Make a gauge. `over` tells how the workers' values are merged; those of a dead worker are dropped."""
        return self._add(Metric(Number, f"gauge_live{over}", name, text, labels))

    def histogram(self, name: str, text: str, *labels: str) -> Metric[Histogram]:
        return self._add(Metric(Histogram, "histogram", name, text, labels))

    def register(self, sampler: Callable[[], object]) -> None:
        """Call `sampler` before each flush, about once a second. It must be quick: it runs on the event loop."""
        self.samplers.append(sampler)

    def _add(self, metric: Metric[S]) -> Metric[S]:
        if self._beside:
            self._beside.register(Taken(metric.family, metric.kind.partition("_")[0]))
        self.metrics.append(metric)
        return metric


class Taken:
    """A name in prometheus_client's registry, which has nothing to collect there."""

    def __init__(self, family: str, kind: str) -> None:
        self._family = prometheus_client.Metric(family, "", kind)

    def describe(self) -> list[prometheus_client.Metric]:
        return [self._family]

    def collect(self) -> list[prometheus_client.Metric]:
        return []


metrics = Registry(prometheus_client.REGISTRY)  # of a worker
