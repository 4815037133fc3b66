import os

from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "ops.tools.lab.contenders.ninja_sync.settings"

application = get_wsgi_application()
