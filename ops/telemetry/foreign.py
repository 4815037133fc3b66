"""prometheus_client's own metrics, of an endpoint or of a library, together with ours in /metrics.

    EMAILS = prometheus_client.Counter("emails_total", "Sent.", ["kind"])

They stay in the worker's memory, as in a program of one process, and are copied before each flush. prometheus_client
merges the workers' values. Counters, histograms and summaries are added up, also those of dead workers. A gauge is
merged over live workers by its `multiprocess_mode`; without a mode, each worker has a value of its own (`pid` is its
slot). Custom collectors are left out, as in prometheus_client's multiprocess mode.
"""

# ruff: noqa: SLF001  `collect()` takes 10 us a sample, on the event loop, and does not tell a gauge's mode

from collections.abc import Callable, Iterator
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Summary
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.utils import floatToGoString

from ops.telemetry.metrics import MAX_SERIES, OTHER, Metric, Number

KINDS = {
    "counter": "counter",
    "histogram": "histogram",
    "summary": "summary",
    "info": "gauge_livemax",
    "stateset": "gauge_livesum",  # how many workers are in a state
}

Read = tuple[Number, Callable[[], float]]


class Foreign:
    """Copies of prometheus_client's metrics in the form of ours. Call `copy` before `metrics` are written."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._copies: dict[MetricWrapperBase, Copy] = {}

    @property
    def metrics(self) -> Iterator[Metric[Number]]:
        for copied in self._copies.values():
            yield from copied.metrics.values()

    def copy(self) -> None:
        for theirs in [*self._registry._collector_to_names]:
            if isinstance(theirs, MetricWrapperBase):
                if theirs not in self._copies:
                    self._copies[theirs] = Copy(theirs)
                self._copies[theirs].update()


class Copy:
    """A copy of one of their metrics: a metric of ours for each name that its samples have."""

    def __init__(self, theirs: MetricWrapperBase) -> None:
        self._theirs = theirs
        mode = getattr(theirs, "_multiprocess_mode", "")  # of a gauge
        self._kind = KINDS.get(str(theirs._type)) or f"gauge_live{mode.removeprefix('live')}"
        self._known: set[tuple[str, ...]] = set()
        self._reads: dict[MetricWrapperBase, list[Read]] = {}
        self.metrics: dict[tuple[str, ...], Metric[Number]] = {}

    def update(self) -> None:
        """Copy the numbers, each in 1 us."""
        theirs = self._theirs
        children = [*theirs._metrics.values()] if theirs._is_parent() else [theirs]
        known = {} if self._kind.startswith("gauge") else self._reads  # a gauge's samples are looked up anew
        self._reads = {child: known.get(child) or [*self._look(child)] for child in children}
        for metric in self.metrics.values():
            for number in metric.series.values():
                number.value = 0.0
        for reads in self._reads.values():
            for number, read in reads:
                number.value += read()

    def _look(self, child: MetricWrapperBase) -> Iterator[Read]:
        """Yield our number for each sample of one of their series, with a function that reads the sample."""
        labels = child._labelvalues
        if labels not in self._known:
            if len(self._known) < MAX_SERIES:
                self._known.add(labels)
            else:
                labels = (OTHER,) * len(labels)
        for suffix, own, read in _samples(child):
            name, names = self._theirs._name + suffix, (*self._theirs._labelnames, *own)
            metric = self.metrics.get((name, *names))
            if metric is None:
                # An info such as "release_info" is written as a gauge: the files have no such kind.
                family = name if self._kind.startswith("gauge") else self._theirs._name
                text = self._theirs._documentation
                metric = Metric(Number, self._kind, name, text, names, family=family)
                self.metrics[(name, *names)] = metric
            yield metric.series.setdefault((*labels, *own.values()), Number()), read


def _samples(child: MetricWrapperBase) -> Iterator[tuple[str, dict[str, str], Callable[[], float]]]:
    """Yield the samples of a series as the files have them: suffix, labels of its own, and a function that reads it.

    A bucket of a histogram does not count the buckets below it, and there is no total: the exporter adds both.
    """
    if isinstance(child, Counter):
        yield "_total", {}, child._value.get
    elif isinstance(child, Summary):
        yield "_count", {}, child._count.get
        yield "_sum", {}, child._sum.get
    elif isinstance(child, Histogram):
        for bound, bucket in zip(child._upper_bounds, child._buckets, strict=True):
            yield "_bucket", {"le": floatToGoString(bound)}, bucket.get
        yield "_sum", {}, child._sum.get
    else:
        for sample in child._child_samples():
            yield sample.name, sample.labels, partial(float, sample.value)


foreign = Foreign(REGISTRY)
