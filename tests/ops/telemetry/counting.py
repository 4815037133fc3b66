"""The service with metrics of prometheus_client's own, as an endpoint or a library would have them."""

import os

from prometheus_client import Counter, Gauge, Histogram, Info, Summary

from config.asgi import application as service
from ops.asgi.types import Receive, Scope, Send

VISITS = Counter("library_visits_total", "Visits.", ["path"])
SIZES = Histogram("library_sizes", "Sizes.", buckets=(1, 10))
TIMES = Summary("library_times", "Times.")
PIDS = Gauge("library_pid", "Whose.", multiprocess_mode="max")
VERSION = Info("library", "What it is.")
VERSION.info({"version": "1.2"})


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        VISITS.labels(scope["path"]).inc()
        SIZES.observe(5)
        TIMES.observe(0.5)
        PIDS.set(os.getpid())
    await service(scope, receive, send)
