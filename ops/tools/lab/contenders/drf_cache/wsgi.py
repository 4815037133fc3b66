"""DJANGO_SETTINGS_MODULE says which cache: that of redis.py or that of locmem.py."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
