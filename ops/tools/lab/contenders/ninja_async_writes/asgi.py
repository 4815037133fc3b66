import os

from django.core.asgi import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "ops.tools.lab.contenders.ninja_async_writes.settings"

application = get_asgi_application()
