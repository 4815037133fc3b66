"""The ASGI application that the server runs: `gunicorn config.asgi:application`. Outermost first."""

import os

import django
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from ops.asgi.garbage import settled_heap
from ops.asgi.handler import LeanASGIHandler
from ops.asgi.lifespan import Lifespan
from ops.postgres.session import limit_sessions

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup(set_prefix=False)
limit_sessions()

handler = LeanASGIHandler() if settings.ASGI_HANDLER == "lean" else ASGIHandler()
application = Lifespan(handler, settled_heap)
