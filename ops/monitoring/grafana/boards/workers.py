"""Workers and runtime: whether the workers live, whether their event loops turn, and the use of their pools."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import stat, table, timeseries
from ops.project import NAME


def quantile(share: float, histogram: str, by: str = "le") -> str:
    return f"histogram_quantile({share}, sum by ({by}) (rate({histogram}_bucket[$__rate_interval])))"


WORKERS = [
    stat(
        "Workers",
        "Processes that serve. Fewer than WEB_CONCURRENCY: some are being replaced.",
        "sum(gunicorn_workers)",
        unit="short",
        size=(4, 8),
        todo="WorkersRestarting",
    ),
    timeseries(
        "Ends of workers",
        "Within the last 10 minutes, by reason. A stop or a reload ends each once; any other end is an alert from "
        "the third on.",
        {"{{reason}}": "sum by (reason) (increase(gunicorn_worker_exits_total[10m]))"},
        unit="short",
        size=(8, 8),
        empty_when="no worker has ended since the start",
        todo="WorkersRestarting",
    ),
    table(
        "What runs",
        "The release, and what it runs on. More than one row: a deployment is under way, or got stuck.",
        "count by (version, revision, python, django) (build_info)",
        labels=("version", "revision", "python", "django"),
        unit="short",
        size=(12, 8),
        todo="ServiceUnreachable",
    ),
]
LOOP = [
    timeseries(
        "Event loop lag",
        "How late a turn of the loop comes. Nothing else in that worker moves meanwhile: some code takes long "
        "without awaiting, or there are more runnable processes than cores. The line is the alert's, half the "
        "budget.",
        {
            "p50": quantile(0.5, "event_loop_lag_seconds"),
            "p95": quantile(0.95, "event_loop_lag_seconds"),
            "p99": quantile(0.99, "event_loop_lag_seconds"),
        },
        unit="s",
        limit=0.005,
        todo="EventLoopLag",
    ),
    timeseries(
        "Garbage collection, p99",
        "How long a collection stops a worker, by generation. Generation 2 looks at every object that is not frozen. "
        "The line is the alert's, half the budget.",
        {"generation {{generation}}": quantile(0.99, "python_gc_pause_seconds", "generation, le")},
        unit="s",
        limit=0.005,
        todo="GarbageCollectionPauses",
    ),
    timeseries(
        "Collections",
        "Times a second, in all workers. Many of generation 0 cost little each; see the share of time beside it.",
        {
            "generation {{generation}}": "sum by (generation)"
            " (rate(python_gc_pause_seconds_count[$__rate_interval]))"
        },
        unit="ops",
        todo="GarbageCollectionPauses",
    ),
    timeseries(
        "Time in garbage collection",
        "Share of the workers' time.",
        {"of a worker": "sum(rate(python_gc_pause_seconds_sum[$__rate_interval])) / sum(gunicorn_workers)"},
        unit="percentunit",
        todo="GarbageCollectionPauses",
    ),
]
ADMISSION = [
    timeseries(
        "Requests that are computed",
        "In all workers, against their limits, which follow the lag of their event loops.",
        {"computed": "sum(admission_active)", "limit": "sum(admission_limit)"},
        unit="short",
        todo="Overloaded",
    ),
]
POOLS = [
    timeseries(
        "Connections of the pools",
        "In all workers, against the most that the pools may open.",
        {
            "{{pool}}, {{state}}": "sum by (pool, state) (postgres_pool_connections)",
            "{{pool}}, most": "sum by (pool) (postgres_pool_max)",
        },
        unit="short",
        todo="PoolExhausted",
    ),
    timeseries(
        "Waiting for a connection",
        "Requests that wait now. Some, for moments, are a burst; all the time, the database is slow or the pool "
        "small.",
        {"{{pool}}": "sum by (pool) (postgres_pool_waiting)"},
        unit="short",
        todo="PoolExhausted",
    ),
    timeseries(
        "Time waited",
        "By 99 of 100: for a connection, and on it behind the statements of earlier requests. Both are part of a "
        "request's latency, as the stage `queue`.",
        {
            "{{pool}}, a connection": quantile(0.99, "postgres_pool_wait_seconds", "pool, le"),
            "{{pool}}, earlier statements": quantile(0.99, "postgres_pipeline_wait_seconds", "pool, le"),
        },
        unit="s",
        todo="PoolExhausted",
    ),
    timeseries(
        "Checkouts",
        "`timeout`: waited in vain. `refused`: the queue was full. `away`: Postgres could not be reached. "
        "`lost`: the connection broke while in use, and a read ran once more. The others but `ok` became a 503.",
        {
            "{{pool}}, {{outcome}}": "sum by (pool, outcome) (rate(postgres_pool_checkouts_total[$__rate_interval]))"
        },
        unit="ops",
        todo="PoolExhausted",
    ),
]
BOARD = Dashboard(
    uid=f"{NAME}-workers",
    title="Workers and runtime",
    description="That the workers live, that their event loops turn, and what their pools hold.",
    rows={
        "Workers": WORKERS,
        "Event loops and garbage collection": LOOP,
        "Admission": ADMISSION,
        "Pools": POOLS,
    },
)
