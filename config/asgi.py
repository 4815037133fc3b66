"""The ASGI application that the server runs: `gunicorn config.asgi:application`."""

import os

from django.core.asgi import get_asgi_application

from ops.postgres.session import limit_sessions

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_asgi_application()
limit_sessions()
