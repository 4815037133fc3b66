"""The application of `drf_writes`, with or without a cache, and of `export`: DJANGO_SETTINGS_MODULE decides."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
