"""The ASGI application that the server runs: `gunicorn config.asgi:application`. Outermost layer first."""

import os

import django
from django.conf import settings

from ops.asgi.garbage import settled_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.probes import Probes
from ops.asgi.stock import StockASGIHandler
from ops.asgi.telemetry import Telemetry
from ops.instruments.loop_lag import watched_loop
from ops.instruments.metrics import metrics
from ops.instruments.pauses import timed_collections
from ops.instruments.readiness import readiness_told
from ops.instruments.recorder import recorded_metrics
from ops.postgres import figures
from ops.postgres.pool import open_pool
from ops.postgres.session import limit_sessions

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)
limit_sessions()

metrics.register(figures.sample)

handler = LeanASGIHandler() if settings.ASGI_HANDLER == "lean" else StockASGIHandler()
application = Lifespan(
    Telemetry(Probes(AllowedHosts(handler))),
    recorded_metrics,
    timed_collections,
    watched_loop,
    open_pool,
    settled_heap,
    readiness_told,
)
