"""The application; DJANGO_SETTINGS_MODULE names redis.py or locmem.py, for the cache."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
