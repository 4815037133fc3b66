"""Service, as its users see it: rate, errors and durations, against the 10 ms and the error budgets."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import bargauge, heatmap, stat, table, timeseries
from ops.project import NAME

REQUESTS = 'http_requests_total{route=~"$route"}'
FAILURES = 'http_requests_total{route=~"$route", status=~"5.."}'
BUCKETS = 'http_request_duration_seconds_bucket{route=~"$route"}'
LIMIT = 0.010  # seconds


def quantile(share: float) -> str:
    return f"histogram_quantile({share}, sum by (le) (rate({BUCKETS}[$__rate_interval])))"


def budget_left(slo: str) -> str:
    """Return the query for the part of an error budget that is left, of 30 days or as many as Prometheus has."""
    events = f'slo:bad_requests:rate5m{{slo="{slo}"}}', f'slo:requests:rate5m{{slo="{slo}"}}'
    bad, all_ = (f"sum_over_time({series}[30d])" for series in events)
    return f"1 - {bad} / {all_} / slo:error_budget:ratio"


NOW = [
    stat(
        "Requests",
        "Answered a second, whatever the answer. None at all: see whether anything is sent, then whether it runs.",
        f"sum(rate({REQUESTS}[$__rate_interval]))",
        unit="reqps",
        todo="ServiceUnreachable",
    ),
    stat(
        "Errors",
        "Share of the requests that were answered with a 5xx. The objective allows 0.1%.",
        f"(sum(rate({FAILURES}[$__rate_interval])) or vector(0)) / sum(rate({REQUESTS}[$__rate_interval]))",
        unit="percentunit",
        limit=0.001,
        todo="AvailabilityBudgetBurnsFast",
    ),
    stat(
        "p99",
        "99 of 100 requests take less. Over 10 ms, the dashboard Latency budget says which stage takes it.",
        quantile(0.99),
        unit="s",
        limit=LIMIT,
        todo="LatencyP99OverBudget",
    ),
    stat(
        "Under 10 ms",
        "Share of the requests that were answered within 10 ms. The objective asks for 99%.",
        'sum(rate(http_request_duration_seconds_bucket{route=~"$route", le="0.01"}[$__rate_interval]))'
        ' / sum(rate(http_request_duration_seconds_count{route=~"$route"}[$__rate_interval]))',
        unit="percentunit",
        least=0.99,
        todo="LatencyBudgetBurnsFast",
    ),
    stat(
        "Errors left",
        "Part of 30 days' error budget (0.1% of the requests) that is left. Below 0, the objective is missed: mend "
        "reliability before anything else is released.",
        budget_left("availability"),
        instant=True,
        unit="percentunit",
        least=0.1,
        todo="AvailabilityBudgetBurnsSlowly",
    ),
    stat(
        "Slowness left",
        "Part of 30 days' latency budget (1% of the answers over 10 ms) that is left. Below 0, the objective is "
        "missed: mend latency before anything else is released.",
        budget_left("latency"),
        instant=True,
        unit="percentunit",
        least=0.1,
        todo="LatencyBudgetBurnsSlowly",
    ),
]
RATE = [
    timeseries(
        "Requests by route",
        "Where the load goes. `unmatched` is what no route is for: wrong links, scanners.",
        {"{{route}}": f"sum by (route) (rate({REQUESTS}[$__rate_interval]))"},
        unit="reqps",
        stack=True,
        todo="LatencyP99OverBudget",
    ),
    timeseries(
        "Answers by status",
        "4xx are the clients' errors, 429 and 503 what was turned away, other 5xx the service's own errors.",
        {"{{status}}": f"sum by (status) (rate({REQUESTS}[$__rate_interval]))"},
        unit="reqps",
        stack=True,
        todo="AvailabilityBudgetBurnsFast",
    ),
]
ERRORS = [
    timeseries(
        "Errors by route",
        "Share of each route's requests that were answered with a 5xx; the line is the objective's 0.1%. One route: "
        "its code or its query. All: what they share, Postgres first.",
        {
            "{{route}}": f"(sum by (route) (rate({FAILURES}[$__rate_interval])) or"
            f" 0 * sum by (route) (rate({REQUESTS}[$__rate_interval])))"
            f" / sum by (route) (rate({REQUESTS}[$__rate_interval]))"
        },
        unit="percentunit",
        limit=0.001,
        todo="AvailabilityBudgetBurnsFast",
    ),
    timeseries(
        "Problems by code",
        "The `code` of each problem+json answer. One that rises after a release names what broke, and for whom.",
        {"{{code}}": "sum by (code) (rate(problems_total[$__rate_interval]))"},
        unit="reqps",
        empty_when="no request was refused since the start",
        todo="AvailabilityBudgetBurnsFast",
    ),
    timeseries(
        "Turned away",
        "Requests that were answered 503 at once, because those in flight already take all that the service has. "
        "Better than making everyone late; but if it lasts, there is more load than workers.",
        {"{{reason}}": "sum by (reason) (rate(http_requests_shed_total[$__rate_interval]))"},
        unit="reqps",
        empty_when="nothing was turned away since the start",
        todo="Overloaded",
    ),
    timeseries(
        "In flight",
        "Requests that are being answered, in all workers. Rate times duration: if it rises while the rate does not, "
        "something has become slow.",
        {"in flight": "sum(http_requests_in_flight)"},
        unit="short",
        todo="LatencyP99OverBudget",
    ),
]
LATENCY = [
    timeseries(
        "Latency",
        "Half, 95% and 99% of the chosen routes' requests take less; the line is the 10 ms that p99 has to stay "
        "below.",
        {"p50": quantile(0.5), "p95": quantile(0.95), "p99": quantile(0.99)},
        unit="s",
        limit=LIMIT,
        todo="LatencyP99OverBudget",
    ),
    timeseries(
        "p99 by route",
        "Over the last five minutes, as the alert sees it. Exports, bulk writes and pages for people may be over the "
        "line.",
        {"{{route}}": 'route:http_request_duration_seconds:p99_rate5m{route=~"$route"}'},
        unit="s",
        limit=LIMIT,
        todo="LatencyP99OverBudget",
    ),
    heatmap(
        "Distribution",
        "How many requests took how long. Two bands are two kinds of requests, often cached and not; a band that "
        "leaves the others is what a quantile hides.",
        f"sum by (le) (increase({BUCKETS}[$__rate_interval]))",
        unit="s",
        todo="LatencyP99OverBudget",
    ),
    timeseries(
        "Burn rates",
        "How fast the error budgets burn; at 1 they last exactly 30 days. Over 14.4 for an hour pages, over 6 for "
        "six hours pages, over 1 for three days is a ticket.",
        {
            "{{slo}}, 5 minutes": "slo:burn_rate:5m",
            "{{slo}}, 1 hour": "slo:burn_rate:1h",
            "{{slo}}, 6 hours": "slo:burn_rate:6h",
            "{{slo}}, 3 days": "slo:burn_rate:3d",
        },
        unit="short",
        limit=14.4,
        todo="LatencyBudgetBurnsFast",
    ),
]
ALERTS = [
    table(
        "Alerts",
        "What fires or is about to. The runbook has an entry for each.",
        "ALERTS",
        labels=("alertname", "alertstate", "severity", "route", "stage", "slo"),
        unit="short",
        size=(12, 9),
        empty_when="all is well",
        todo="ServiceUnreachable",
    ),
    bargauge(
        "Budget used by stage",
        "p99 of each stage as a part of its limit. The one that is over 100% is where to look.",
        {"{{stage}}": "stage:http_request_stage_seconds:p99_rate5m / stage:latency_budget:seconds"},
        unit="percentunit",
        limit=1,
        todo="StageOverBudget",
    ),
]
BOARD = Dashboard(
    uid=f"{NAME}-service",
    title="Service",
    description="Rate, errors and durations of the requests, against the 10 ms and the error budgets.",
    by_route=True,
    rows={"Now": NOW, "Rate": RATE, "Latency": LATENCY, "Errors": ERRORS, "What is wrong": ALERTS},
)
