"""The ASGI application that the server runs: `gunicorn config.asgi:application`. Outermost last."""

import os

import django
from django.conf import settings

from ops.asgi.garbage import settled_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.hosts import AllowedHosts
from ops.asgi.lifespan import Lifespan
from ops.asgi.stock import StockASGIHandler
from ops.postgres.pool import open_pool
from ops.postgres.session import limit_sessions

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)
limit_sessions()

handler = LeanASGIHandler() if settings.ASGI_HANDLER == "lean" else StockASGIHandler()
application = Lifespan(AllowedHosts(handler), open_pool, settled_heap)
