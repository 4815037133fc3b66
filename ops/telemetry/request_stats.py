"""Metrics of requests: how many, how long, in which stages.

A caller that gives the same answer many times can keep the result of `durations(route, method)`; then `record` takes
0.2 us.
"""

import re
from bisect import bisect_left

from ops.telemetry.metrics import BOUNDS_SECONDS, OTHER, Histogram, Number, metrics
from ops.telemetry.stopwatch import CACHE, STAGES, UNMATCHED, Stopwatch

# Those of RFC 9110 and RFC 5789. A client may send any other word: all others count as OTHER.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
# Templates come from the URL configuration, not from clients; this bounds a mistake.
MAX_ROUTES = 200
FAILURES = ("500", "503")  # each route counts them from 0 on: else Prometheus would not see the first ones
PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")

REQUESTS = metrics.counter("http_requests_total", "Requests answered.", "route", "method", "status")
DURATION = metrics.histogram(
    "http_request_duration_seconds", "Until the last byte was sent.", "route", "method", "status"
)
STAGE = metrics.histogram("http_request_stage_seconds", "By stage.", "route", "stage")
SHED = metrics.counter(
    "http_requests_shed_total", "Requests refused so that the others are served.", "reason"
)
in_flight = metrics.gauge("http_requests_in_flight", "Requests that are being answered.").labels()


class Stages(dict[int, Histogram]):
    """The histograms of a route's stages, by the index of the stage."""

    def __init__(self, template: str) -> None:
        super().__init__()
        self._template = template

    def __missing__(self, index: int) -> Histogram:
        found = self[index] = STAGE.labels(self._template, STAGES[index].name)
        return found


class Route:
    """The metrics of a URL template."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.stages = Stages(template)
        self.methods: dict[str, Durations] = {}


class Durations(dict[int, Histogram]):
    """The histograms of the durations of a route's answers to one method, by status."""

    def __init__(self, route: Route, method: str) -> None:
        super().__init__()
        self.route, self.method = route, method

    def __missing__(self, status: int) -> Histogram:
        found = self[status] = DURATION.labels(self.route.template, self.method, str(status))
        return found


_routes = {UNMATCHED: Route(UNMATCHED)}


def route(pattern: str) -> Route:
    """Return the route of a Django URL pattern such as `api/products/<id:product_id>`; UNMATCHED for too many."""
    found = _routes.get(pattern)
    if found is None:
        if len(_routes) >= MAX_ROUTES:
            return _routes[UNMATCHED]
        found = _routes[pattern] = Route(template_of(pattern))
    return found


def template_of(pattern: str) -> str:
    """Return a Django URL pattern as OpenAPI spells it: `/api/products/{product_id}`."""
    return "/" + PARAMETER.sub(r"{\1}", pattern).lstrip("/")


def durations(route: Route, method: str) -> Durations:
    """Return the histograms of a route's durations with one method; all unknown methods share one."""
    found = route.methods.get(method)
    if found is None:
        known = method if method in METHODS else OTHER
        if known not in route.methods:
            route.methods[known] = Durations(route, known)
            for status in FAILURES:
                REQUESTS.labels(route.template, known, status)
        found = route.methods[known]
    return found


def record(durations: Durations, status: int, seconds: float) -> None:
    """Record an answer from the worker's memory: all of its time belongs to the stage `cache`."""
    bucket = bisect_left(BOUNDS_SECONDS, seconds)
    for series in (durations[status], durations.route.stages[CACHE.index]):
        series.counts[bucket] += 1
        series.sum += seconds


def record_stages(durations: Durations, status: int, seconds: float, watch: Stopwatch) -> None:
    """Record an answer and the time of each of its stages."""
    durations[status].observe(seconds)
    stages = durations.route.stages
    for index, spent in enumerate(watch.seconds):
        if spent:
            stages[index].observe(spent)


def count() -> None:
    """Set the counters of requests to the counts of durations: once a second, rather than in each request."""
    counted: dict[Number, int] = {}  # labels beyond MAX_SERIES share a counter
    for labels, durations in DURATION.series.items():
        series = REQUESTS.labels(*labels)
        counted[series] = counted.get(series, 0) + sum(durations.counts)
    for series, requests in counted.items():
        series.value = requests


metrics.register(count)
