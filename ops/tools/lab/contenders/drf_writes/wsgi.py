"""DJANGO_SETTINGS_MODULE says whether with a cache: settings.py or cached.py."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
