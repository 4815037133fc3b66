"""Cache: the answers of the page cache by tier, and whether workers get invalidations."""

from ops.monitoring.grafana.dashboard import Dashboard
from ops.monitoring.grafana.panels import stat, timeseries
from ops.project import NAME

REQUESTS = "page_cache_requests_total"
SERVED = f'{REQUESTS}{{outcome=~"hit|stale|collapsed"}}'
ASKED = f'{REQUESTS}{{outcome!="bypass"}}'
ANSWERS = [
    timeseries(
        "Hit ratio by page",
        "Share of the requests that need no query of their own, of those that the cache is for. A drop: a release, a "
        "flood of invalidations, Redis away, or clients that send ever new parameters.",
        {
            "{{page}}": f"sum by (page) (rate({SERVED}[$__rate_interval]))"
            f" / sum by (page) (rate({ASKED}[$__rate_interval]))"
        },
        unit="percentunit",
        todo="CacheDown",
    ),
    timeseries(
        "Outcomes",
        "`stale`: an older page, while one request makes a new one. `collapsed`: waited for another request's "
        "answer instead of asking Postgres too. `bypass`: not to be cached.",
        {"{{outcome}}": f"sum by (outcome) (rate({REQUESTS}[$__rate_interval]))"},
        unit="reqps",
        stack=True,
        todo="CacheDown",
    ),
    timeseries(
        "Tiers",
        "Where the answer was: `wire` on the worker's socket, `l1` in its memory, `l2` in Redis, `none` in Postgres.",
        {"{{tier}}": f"sum by (tier) (rate({REQUESTS}[$__rate_interval]))"},
        unit="reqps",
        stack=True,
        todo="CacheDown",
    ),
    timeseries(
        "Stage cache",
        "What a request waits for Redis. Worth it while it is below the query that it saves.",
        {
            f"p{share * 100:.0f}": f"histogram_quantile({share}, sum by (le) (rate("
            'http_request_stage_seconds_bucket{stage="cache"}[$__rate_interval])))'
            for share in (0.5, 0.99)
        },
        unit="s",
        empty_when="no request has asked Redis yet",
        todo="CacheDown",
    ),
]
MEMORY = [
    timeseries(
        "Memory",
        "What all workers together keep in their own memory (L1).",
        {"bytes": "sum(page_cache_bytes)"},
        unit="bytes",
        size=(8, 8),
        todo="CacheNotInvalidated",
    ),
    timeseries(
        "Entries",
        "Pages in the workers' own memory.",
        {"entries": "sum(page_cache_entries)"},
        unit="short",
        size=(8, 8),
        todo="CacheNotInvalidated",
    ),
    timeseries(
        "Evictions",
        "Entries that had to go, by reason. Many for lack of room: pages are used once, or the memory is too small.",
        {"{{reason}}": "sum by (reason) (rate(page_cache_evictions_total[$__rate_interval]))"},
        unit="ops",
        size=(8, 8),
        empty_when="nothing was evicted since the start",
        todo="CacheNotInvalidated",
    ),
]
TRUTH = [
    timeseries(
        "Invalidations",
        "Writes that made pages untrue. Each worker hears of them from Redis.",
        {"heard": "sum(rate(page_cache_invalidations_total[$__rate_interval]))"},
        unit="ops",
        size=(8, 8),
        todo="CacheNotInvalidated",
    ),
    stat(
        "Workers hear of changes",
        "1 while all workers have their subscription. At 0 some drop their own pages again and again.",
        "min(page_cache_subscribed)",
        unit="short",
        least=1,
        size=(4, 8),
        todo="CacheNotInvalidated",
    ),
    stat(
        "Corrupt",
        "Entries in Redis that could not be read, in a day: another release's, or another program's. They are "
        "made anew.",
        "sum(increase(page_cache_corrupt_total[1d]))",
        unit="short",
        limit=1,
        size=(4, 8),
        todo="CacheDown",
    ),
    stat(
        "Breaker",
        "1 while a worker does without Redis, since it failed three times in a row.",
        "max(redis_breaker_open)",
        unit="short",
        limit=1,
        size=(4, 8),
        todo="CacheDown",
    ),
    timeseries(
        "Failures of Redis",
        "By kind. Each cost its request at most 50 ms, and an answer from Postgres.",
        {"{{kind}}": "sum by (kind) (rate(redis_failures_total[$__rate_interval]))"},
        unit="ops",
        size=(4, 8),
        empty_when="Redis has not failed since the start",
        todo="CacheDown",
    ),
]
BOARD = Dashboard(
    uid=f"{NAME}-cache",
    title="Cache",
    description="The page cache: what it answers, from which tier, and whether workers hear what has changed.",
    rows={"Answers": ANSWERS, "The workers' own memory": MEMORY, "Truth": TRUTH},
)
