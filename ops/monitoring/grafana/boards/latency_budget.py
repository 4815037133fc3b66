"""Latency budget: where the 10 ms go, each stage against its limit."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import JSON, bargauge, timeseries
from ops.project import NAME

STAGE = "http_request_stage_seconds"
LIMITS = {
    "middleware": 0.001,
    "auth": 0.001,
    "db": 0.004,
    "serialisation": 0.002,
    "response": 0.002,
}  # seconds
WHAT_IT_IS = {
    "middleware": "What no other stage claims, until the view has returned: ASGI layers, routing, parameters.",
    "auth": "Looking up and comparing API keys.",
    "db": "From the statement that is sent to the rows that are there, the way to Postgres and back included.",
    "serialisation": "Making JSON in Python. Lists need next to none: Postgres writes theirs.",
    "response": "From the view's return to the last byte given to the socket.",
    "cache": "Asking Redis. A stage without a limit: it replaces others, and ends after 50 ms at worst.",
    "queue": "Waiting for a connection of a pool. A stage without a limit: it should be nothing.",
    "upstream": "Waiting for another service. A stage without a limit: each upstream has a deadline of its own.",
}


def quantile(share: float, stage: str) -> str:
    buckets = f'{STAGE}_bucket{{route=~"$route", stage="{stage}"}}'
    return f"histogram_quantile({share}, sum by (le) (rate({buckets}[$__rate_interval])))"


def stage_panel(stage: str) -> JSON:
    return timeseries(
        stage.capitalize(),
        WHAT_IT_IS[stage] + (" The line is its limit." if stage in LIMITS else ""),
        {"p50": quantile(0.5, stage), "p95": quantile(0.95, stage), "p99": quantile(0.99, stage)},
        unit="s",
        limit=LIMITS.get(stage),
        size=(8, 8),
        todo=TODO.get(stage, "StageOverBudget"),
        empty_when=NOT_USED.get(stage, ""),
    )


TODO = {"queue": "PoolExhausted", "cache": "CacheDown", "upstream": "UpstreamDown"}
NOT_USED = {
    "auth": "no request has needed a key yet",
    "cache": "no request has asked Redis yet",
    "queue": "nobody has waited within the interval",
    "upstream": "no request has waited for another service yet",
}
WHOLE = [
    bargauge(
        "Budget used",
        "p99 of each stage in the last five minutes as a part of its limit; over 100% for a quarter of an hour is an "
        "alert.",
        {"{{stage}}": "stage:http_request_stage_seconds:p99_rate5m / stage:latency_budget:seconds"},
        unit="percentunit",
        limit=1,
        size=(8, 9),
        todo="StageOverBudget",
    ),
    timeseries(
        "Where the time goes",
        "An average request of the chosen routes, stage by stage. What grows is what became slow, or what more "
        "requests need.",
        {
            "{{stage}}": f'sum by (stage) (rate({STAGE}_sum{{route=~"$route"}}[$__rate_interval]))'
            ' / scalar(sum(rate(http_request_duration_seconds_count{route=~"$route"}[$__rate_interval])))'
        },
        unit="s",
        stack=True,
        limit=0.010,
        size=(8, 9),
        todo="StageOverBudget",
    ),
    timeseries(
        "The whole request",
        "The sum of all stages, against the 10 ms. Quantiles do not add up: the p99 of a request is below the sum of "
        "its stages' p99, unless the same requests are slow in all of them.",
        {
            f"p{share * 100:.0f}": f"histogram_quantile({share}, sum by (le) (rate("
            'http_request_duration_seconds_bucket{route=~"$route"}[$__rate_interval])))'
            for share in (0.5, 0.95, 0.99)
        },
        unit="s",
        limit=0.010,
        size=(8, 9),
        todo="LatencyP99OverBudget",
    ),
]
UPSTREAMS = [
    timeseries(
        "Calls",
        "By upstream and outcome: the class of the status, or the reason that there was no answer of use.",
        {
            "{{upstream}} {{outcome}}": "sum by (upstream, outcome) (rate(upstream_calls_total[$__rate_interval]))"
        },
        unit="ops",
        size=(8, 8),
        todo="UpstreamDown",
        empty_when="no service is called",
    ),
    timeseries(
        "p99 of a call",
        "With all its tries. It ends at the upstream's deadline.",
        {
            "{{upstream}}": "histogram_quantile(0.99, sum by (upstream, le) ("
            "rate(upstream_call_seconds_bucket[$__rate_interval])))"
        },
        unit="s",
        size=(8, 8),
        todo="UpstreamDown",
        empty_when="no service is called",
    ),
    timeseries(
        "Breakers",
        "1 while a worker leaves an upstream alone.",
        {"{{upstream}}": "max by (upstream) (upstream_breaker_open)"},
        unit="short",
        limit=1,
        size=(8, 8),
        todo="UpstreamDown",
        empty_when="no service is called",
    ),
]
BOARD = Dashboard(
    uid=f"{NAME}-latency-budget",
    title="Latency budget",
    description="Where the 10 ms go: middleware 1, auth 1, db 4, serialisation 2, response 2.",
    by_route=True,
    rows={
        "The budget": WHOLE,
        "Stage by stage": [stage_panel(stage) for stage in WHAT_IT_IS],
        "Other services": UPSTREAMS,
    },
)
