"""The ASGI application that the server runs, outermost layer last: `gunicorn config.asgi:application`."""

import os

from ops.asgi.handler import get_application
from ops.asgi.hosts import AllowedHosts
from ops.postgres.session import limit_sessions

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = AllowedHosts(get_application())
limit_sessions()
