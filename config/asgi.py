"""The ASGI application that the server runs: `gunicorn config.asgi:application`. The outermost layer is last."""

import os
from contextlib import suppress

# django.setup(), and the modules imported after it, read the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.urls import NoReverseMatch, get_resolver

from ops.asgi.admission import Admission, control_admission
from ops.asgi.answering import TwoMessages
from ops.asgi.bodies import BodyLimit
from ops.asgi.cors import Cors
from ops.asgi.forwarded import ForwardedProto
from ops.asgi.garbage import settle_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan, Resource
from ops.asgi.probes import Probes
from ops.asgi.root_path import RootPath
from ops.asgi.security import SecurityHeaders
from ops.asgi.stock import StockASGIHandler
from ops.asgi.telemetry import Telemetry
from ops.asgi.types import Application
from ops.checks.private_apis import refuse_missing
from ops.http.client import open_connections
from ops.postgres import pool_metrics
from ops.postgres.health import ask_postgres
from ops.postgres.pool import open_pool
from ops.postgres.session import startup_parameters
from ops.redis.health import ask_redis
from ops.telemetry.health import Health
from ops.telemetry.loop_lag import watch_loop
from ops.telemetry.metrics import metrics
from ops.telemetry.pauses import time_collections
from ops.telemetry.readiness import announce_readiness
from ops.telemetry.recorder import record_metrics

django.setup(set_prefix=False)
refuse_missing()

from api.cache.layer import PageCache  # noqa: E402  Ninja reads the settings when it is imported
from api.keys.lookup import remember_keys  # noqa: E402
from api.limits import RateLimits  # noqa: E402
from api.ninja import APIS  # noqa: E402
from api.reads.warming import warm_listings  # noqa: E402

# Load the routes before the workers fork: without that, the first request of each worker took 24 ms; now it takes 5.
# Building the OpenAPI document, which `make up` requests, takes 30 ms.
_ = get_resolver().url_patterns
for api in APIS:
    with suppress(NoReverseMatch):  # an API without a URL
        api.get_openapi_schema()

metrics.register(pool_metrics.sample)
health = Health({"runtime": settings.RUNTIME}, postgres=ask_postgres, redis=ask_redis)

handler: ASGIHandler = LeanASGIHandler() if settings.RUNTIME == "lean" else StockASGIHandler()
if settings.INSTRUMENTED:
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    handler = ASGIStaticFilesHandler(handler)  # for the instruments' pages
application: Application = Admission(BodyLimit(handler))
resources: list[Resource] = [
    startup_parameters,
    record_metrics,
    time_collections,
    watch_loop,
    open_pool,
    open_connections,
    remember_keys,
    warm_listings,
    control_admission,
]
if settings.PAGE_CACHE != "off":
    application = pages = PageCache(application, memory=settings.PAGE_CACHE == "on")
    resources.append(pages.open_tiers)
if any(settings.RATE_LIMITS.values()):
    application = limits = RateLimits(application)
    resources.append(limits.counting)
# Each layer declares in `admits` its effect on a cached answer. A layer of your own must do so, too (docs/layers.md).
application = AllowedHosts(Head(application))
if settings.CORS_ORIGINS:
    application = Cors(application)
application = Probes(application, health)
if settings.ROOT_PATH or settings.TRUSTED_PROXIES:
    application = RootPath(application)
application = SecurityHeaders(Telemetry(application))
if settings.TRUSTED_PROXIES:
    application = ForwardedProto(application)
if settings.RUNTIME == "stock":
    application = TwoMessages(application)
application = Lifespan(application, *resources, settle_heap, announce_readiness)
