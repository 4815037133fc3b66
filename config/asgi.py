"""The ASGI application that the server runs: `gunicorn config.asgi:application`. Outermost last."""

import os

# Before the imports: the pool is chosen by the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.urls import get_resolver

from ops.asgi.garbage import settled_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan, Resource
from ops.asgi.probes import Probes
from ops.asgi.protocol import Application
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

django.setup(set_prefix=False)

from api.cache.layer import PageCache  # noqa: E402  Ninja reads the settings when it is imported

limit_sessions()
# Imported before the workers fork: each one's first request took 24 ms for it, and takes 5 now.
_ = get_resolver().url_patterns

metrics.register(figures.sample)

handler: ASGIHandler = LeanASGIHandler() if settings.ASGI_HANDLER == "lean" else StockASGIHandler()
if settings.INSTRUMENTED:
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    handler = ASGIStaticFilesHandler(handler)  # of their pages: nobody else needs files
application: Application = handler
resources: list[Resource] = [recorded_metrics, timed_collections, watched_loop, open_pool]
if settings.PAGE_CACHE != "off":
    application = pages = PageCache(application, memory=settings.PAGE_CACHE == "on")
    resources.append(pages.open_tiers)
application = Telemetry(Probes(AllowedHosts(Head(application))))
application = Lifespan(application, *resources, settled_heap, readiness_told)
