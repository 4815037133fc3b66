"""Latency budget: where the 10 ms go, each stage against its limit."""

from ops.grafana.dashboard import Dashboard
from ops.grafana.panels import JSON, bargauge, timeseries

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
        todo="PoolExhausted" if stage == "queue" else "CacheDown" if stage == "cache" else "StageOverBudget",
        empty_when=NOT_USED.get(stage, ""),
    )


NOT_USED = {
    "auth": "no request has needed a key yet",
    "cache": "no request has asked Redis yet",
    "queue": "nobody has waited within the interval",
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
BOARD = Dashboard(
    uid="sub10-latency-budget",
    title="Latency budget",
    description="Where the 10 ms go: middleware 1, auth 1, db 4, serialisation 2, response 2.",
    by_route=True,
    rows={"The budget": WHOLE, "Stage by stage": [stage_panel(stage) for stage in WHAT_IT_IS]},
)
