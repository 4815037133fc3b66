"""The application; DJANGO_SETTINGS_MODULE names settings.py, or cached.py for the same with a cache."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
