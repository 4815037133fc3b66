"""The ASGI application that the server runs: `gunicorn config.asgi:application`. Outermost last."""

import os

# Before the imports: the pool is chosen by the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings

from ops.asgi.garbage import settled_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.head import Head
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan, Resource
from ops.asgi.protocol import Application
from ops.asgi.stock import StockASGIHandler
from ops.postgres.pool import open_pool
from ops.postgres.session import limit_sessions

django.setup(set_prefix=False)

from api.cache.layer import PageCache  # noqa: E402  Ninja reads the settings when it is imported

limit_sessions()

application: Application = LeanASGIHandler() if settings.ASGI_HANDLER == "lean" else StockASGIHandler()
if settings.INSTRUMENTED:
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    application = ASGIStaticFilesHandler(application)  # of their pages: nobody else needs files
resources: list[Resource] = [open_pool]
if settings.PAGE_CACHE != "off":
    application = pages = PageCache(application, memory=settings.PAGE_CACHE == "on")
    resources.append(pages.open_tiers)
application = Lifespan(AllowedHosts(Head(application)), *resources, settled_heap)
