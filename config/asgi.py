"""The ASGI application that the server runs: `gunicorn config.asgi:application`. Outermost last."""

import os

# Before the imports: the pool is chosen by the settings.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from ops.asgi.garbage import settled_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.stock import StockASGIHandler
from ops.postgres.pool import open_pool
from ops.postgres.session import limit_sessions

django.setup(set_prefix=False)
limit_sessions()

handler: ASGIHandler = LeanASGIHandler() if settings.ASGI_HANDLER == "lean" else StockASGIHandler()
if settings.INSTRUMENTED:
    from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

    handler = ASGIStaticFilesHandler(handler)  # of their pages: nobody else needs files
application = Lifespan(AllowedHosts(handler), open_pool, settled_heap)
